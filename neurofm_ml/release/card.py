"""The model card of one run: written from the scores table and the provenance, never by hand.

A number stands in the card only if it stands in an artifact; what did not beat its baseline says
so in the same table; a source that may not be passed on marks the weights as not to be passed on either.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neurofm_ml import markdown
from neurofm_ml.data.batches import neural_signals
from neurofm_ml.data.recordings import load_card
from neurofm_ml.evaluation.scoring.scores import BASELINE, LOSES, NO_VERDICT, best_first, read_scores
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.presets import CardConfig
from neurofm_ml.types import Check, Report

CASE = ["dataset", "recording", "task"]


def write(cfg: CardConfig, scores: Path, pretrained: Path, adapted: Path, out: Path) -> Report:
    """Write ``card.md`` and ``card.json`` (what a program wants to know: licences, verdicts)."""
    table, comparisons = read_scores(scores / "scores.parquet"), pd.read_parquet(scores / "comparisons.parquet")
    made = {"pretrained": _result(pretrained), "adapted": _result(adapted), "scores": _result(scores)}
    cards = _sources(made, {*made["pretrained"]["metrics"]["datasets"].split(", "), *table.dataset})
    text = "\n".join(_lines(cfg, table, comparisons, cards, made))
    (out / "card.md").write_text(text)
    facts = {
        "model": f"neurofmx-{cfg.size}-{cfg.seed}",
        "redistributable": all(card.redistribute for card in cards),
        "licences": {card.name: card.licence for card in cards},
        "stamps": comparisons.groupby(["method", "stamp"]).size().reset_index(name="tasks").to_dict("records"),
    }
    (out / "card.json").write_text(json.dumps(facts, indent=1))
    checks = (_every_score_is_shown(text, table, comparisons), _may_be_passed_on(cards))
    return Report({"tasks": len(table[CASE].drop_duplicates()), "datasets": len(cards)}, checks, {"card": "card.md"})


def _result(artifact: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((artifact / "result.json").read_text())
    return result


def _sources(made: dict[str, dict[str, Any]], names: Collection[str]) -> list[DatasetCard]:
    """Cards of the datasets that pretraining or fine-tuning learned from."""
    paths = (Path(entry["path"]) for role in ("adapted", "pretrained") for entry in made[role]["inputs"]["shards"])
    cards = {card.name: card for card in map(load_card, paths)}
    return [card for name, card in cards.items() if name in names]


def _lines(
    cfg: CardConfig, table: pd.DataFrame, comparisons: pd.DataFrame, cards: Sequence[DatasetCard], made: dict[str, dict[str, Any]]
) -> Iterator[str]:
    about = made["pretrained"]["metrics"]
    yield f"# NeuroFMx {cfg.size}, seed {cfg.seed}"
    read = sorted({card.signals[name].modality for card in cards for name in neural_signals(card)})
    yield f"\nOne model of {about['parameters']:,} shared parameters that reads {', '.join(read)},"
    yield f"pretrained for {about['steps']:,} updates on {len(about['datasets'].split(', '))} datasets and fine-tuned once per recording."
    yield "\n## Scores\n"
    yield from _score_lines(table, comparisons)
    yield "\n## What it learned from\n"
    yield from _data_lines(cards)
    if left_out := about.get("left_out"):
        yield f"\nLeft out, because no training windows of theirs were there: {left_out}."
    yield "\n## Limits\n"
    yield from _limits(table, comparisons, cards)
    yield "\n## Where the numbers come from\n"
    origins = [
        (n, r["fingerprint"], r["data_version"], r["provenance"]["git_revision"], r["provenance"]["finished"]) for n, r in made.items()
    ]
    yield from markdown.table(("artifact", "fingerprint", "data version", "code", "finished"), origins)
    yield ""


def _score_lines(table: pd.DataFrame, comparisons: pd.DataFrame) -> Iterator[str]:
    """Every row of the scores table, best first in each task, with its stamp."""
    stamps = {(*_case(r), r.method): r.stamp for r in comparisons.itertuples()}
    yield "Each task in its own metric, on test windows that nothing was fitted or chosen on; 95 % bootstrap interval over blocks of"
    yield "time or whole people and trials; `control` is what the method reaches on labels moved in time or exchanged.\n"
    rows = [
        (*_named(r), f"{_number(r.ci_low)} to {_number(r.ci_high)}", _number(r.control), stamps.get((*_case(r), r.method), ""))
        for r in best_first(table).itertuples()
    ]
    yield from markdown.table(("dataset", "recording", "task", "method", "metric", "value", "95 %", "control", "verdict"), rows)


def _case(row: Any) -> tuple[str, str, str]:
    return row.dataset, row.recording, row.task


def _named(row: Any) -> tuple[str, ...]:
    """The cells by which a row of the scores table is known in the card."""
    return *_case(row), row.method, row.metric, _number(row.value)


def _data_lines(cards: Sequence[DatasetCard]) -> Iterator[str]:
    rows = [(c.name, c.species, ", ".join(c.modalities), c.licence, "yes" if c.redistribute else "no", c.source) for c in cards]
    yield from markdown.table(("dataset", "species", "modalities", "licence", "may be passed on", "source"), rows)
    if cited := [f"- {c.name}: {c.citation}" for c in cards if c.citation]:
        yield "\nTo be cited:\n"
        yield from cited


def _limits(table: pd.DataFrame, comparisons: pd.DataFrame, cards: Sequence[DatasetCard]) -> Iterator[str]:
    lost = comparisons[comparisons.stamp == LOSES]
    undecided = int((comparisons.stamp == NO_VERDICT).sum())
    if undecided:
        yield f"- {undecided} comparisons with the best tuned baseline rest on too few people or trials to tell; they are not counted below."
    yield f"- {len(lost)} of {len(comparisons) - undecided} comparisons with the best tuned baseline are lost" + (":" if len(lost) else ".")
    for r in lost.itertuples():
        yield f"  - {r.dataset}/{r.recording}/{r.task}: {r.method} {_number(r.value)} against {r.baseline} {_number(r.baseline_value)}"
    decoded = set(table[table.family != BASELINE].dataset)
    if unscored := sorted({c.name for c in cards} - decoded):
        yield f"- Seen in pretraining but scored on no task: {', '.join(unscored)}."
    yield f"- Scores are of one seed and hold for the {len(table[CASE[:2]].drop_duplicates())} recordings named, not for new animals."
    if closed := [c.name for c in cards if not c.redistribute]:
        yield f"- The weights may not be passed on: {', '.join(closed)} restrict it or do not say."


def _every_score_is_shown(text: str, table: pd.DataFrame, comparisons: pd.DataFrame) -> Check:
    """Each row of the scores table, and each lost comparison, stands in the card with its number."""
    lines = text.splitlines()
    begun = {" | ".join(line.split(" | ")[:6]) for line in lines}
    missing = [r for r in table.itertuples() if markdown.line(_named(r)).removesuffix(" |") not in begun]
    lost = int((comparisons.stamp == LOSES).sum())
    shown = sum(line.endswith(f"| {LOSES} |") for line in lines)
    numbers = {"scores_missing": len(missing), "losses_missing": lost - shown}
    return Check("every_score_is_shown", not any(numbers.values()), numbers=numbers, threshold="0 missing")


def _may_be_passed_on(cards: Sequence[DatasetCard]) -> Check:
    closed = [card.name for card in cards if not card.redistribute]
    return Check(
        "may_be_redistributed",
        not closed,
        severity="warn",
        numbers={"closed_sources": len(closed)},
        threshold="0",
        note=f"trained on {', '.join(closed)}, whose licence restricts what may be passed on or is not stated" if closed else "",
    )


def _number(value: Any) -> str:
    return f"{value:.3f}"
