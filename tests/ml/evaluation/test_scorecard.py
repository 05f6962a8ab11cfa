"""The report: what it says comes from its tables, every number can be followed home, and targets are judged as told."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from neurofm_ml.evaluation.scorecard.cards import with_ancestors
from neurofm_ml.evaluation.scorecard.evidence import Evidence, gather, summarised
from neurofm_ml.evaluation.scorecard.figures import figures, heat_map
from neurofm_ml.evaluation.scorecard.job import write_scorecard
from neurofm_ml.evaluation.scorecard.targets import MET, OPEN, REFUTED, UNMEASURED, judge
from neurofm_ml.evaluation.scoring.scores import BEATS, LOSES, NO_VERDICT, STAMPS, SWAPS, TIES, best_first
from neurofm_ml.evaluation.shots.few_shot import EXAMPLE_COLUMNS, PROBE, RAW, SCRATCH
from neurofm_ml.presets import ScorecardConfig
from neurofm_ml.types import SCORE_COLUMNS

ROW = {
    "run": "tiny-0", "fingerprint": "f0", "family": "neurofmx", "size": "tiny", "seed": 0, "task": "velocity", "trained_on": "toy/a",
    "dataset": "toy", "recording": "a", "split": "test", "species": "Mus musculus", "modality": "spikes", "method": "fine_tuned",
    "metric": "r2", "value": 0.9, "ci_low": 0.85, "ci_high": 0.95, "p": 0.01, "noise_ceiling": float("nan"), "n": 100,
    "k_shot": float("nan"), "control": 0.0, "parameters": 10, "train_seconds": 1.0, "samples_per_second": 5.0,
}  # fmt: skip
COMPARED = {
    "run": "tiny-0", "dataset": "toy", "recording": "a", "task": "velocity", "method": "fine_tuned", "baseline": "ridge", "value": 0.9,
    "baseline_value": 0.8, "difference": 0.1, "ci_low": 0.05, "ci_high": 0.15, "p": 0.01, "block": 3, "stamp": BEATS,
    "metric": "r2", "pieces": 30.0, "test": "bootstrap of blocks",
}  # fmt: skip
BASE = {"family": "baseline", "method": "ridge", "value": 0.8, "ci_low": 0.75, "ci_high": 0.85, "fingerprint": "b0", "run": "baselines"}


def scores(*changes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{**ROW, **change} for change in changes], columns=list(SCORE_COLUMNS))


def compared(*changes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{**COMPARED, **change} for change in changes])


def examples(**counts: tuple[int, int]) -> pd.DataFrame:
    """Training examples and classes of tasks."""
    rows = [("toy", "a", task, *count) for task, count in counts.items()]
    return pd.DataFrame(rows, columns=list(EXAMPLE_COLUMNS))


def evidence(rows: pd.DataFrame, pairs: pd.DataFrame | None = None, **more: pd.DataFrame) -> Evidence:
    empty = {
        "few_shot": scores(),
        "examples": examples(),
        "transfer": pd.DataFrame(),
        "identity": pd.DataFrame(),
        "scaling": pd.DataFrame(),
        "sources": pd.DataFrame(),
    }
    return Evidence(scores=rows, comparisons=compared({}) if pairs is None else pairs, **{**empty, **more})


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[..., Path]:
    """An artifact as a job leaves it, made from others."""

    def make(asset: str, fingerprint: str, made_from: tuple[Path, ...] = (), **tables: pd.DataFrame) -> Path:
        path = tmp_path / "artifacts" / asset / "tiny-0" / fingerprint
        path.mkdir(parents=True)
        for name, table in tables.items():
            table.to_parquet(path / f"{name}.parquet", index=False)
        inputs = {"made_from": [{"path": str(p), "data_version": "v"} for p in made_from]}
        provenance = {"git_revision": "c0de", "finished": "2026-01-01T00:00:00Z"}
        (path / "result.json").write_text(json.dumps({"inputs": inputs, "data_version": f"v-{fingerprint}", "provenance": provenance}))
        return path

    return make


@pytest.fixture
def inputs(artifact: Callable[..., Path]) -> dict[str, list[Path]]:
    shards = artifact("shards", "s0")
    used = (artifact("neurofmx_adapted", "f0", (shards,)), artifact("baselines", "b0", (shards,)))
    rows = scores({}, {"seed": 1, "value": 0.88}, BASE)
    return {"scores": [artifact("scores", "t0", used, scores=rows, comparisons=compared({}, {"run": "tiny-1"}))]}


def test_seeds_are_summed_up(inputs: dict[str, list[Path]]) -> None:
    table = gather(inputs).summary.set_index("method")
    ours = table.loc["fine_tuned"]
    assert (ours.value, ours.seeds, ours.verdict) == (pytest.approx(0.89), 2, BEATS)
    # Half-widths of .05 and, at .86-.88, .07 ... and the error of a mean of two that differ by .02.
    assert ours.ci_high - ours.value > 0.05
    skewed = summarised(scores({"ci_low": 0.4, "ci_high": 0.97}, {"method": "far", "ci_high": 1.3}), compared({})).set_index("method")
    assert skewed.loc["fine_tuned", ["ci_low", "ci_high"]].tolist() == pytest.approx([0.4, 0.97])
    assert skewed.loc["far"].ci_high == 1.0, "no R2 is larger"
    assert pd.isna(table.loc["ridge"].verdict)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((0.1, 0.1), BEATS),
        ((-0.1, -0.1), LOSES),
        ((0.1, -0.1), TIES),
        ((0.02, 0.03), TIES),
        ((0.3, 0.06), TIES),
        ((0.1, 0.12), TIES),  # two seeds that differ by .02: t is 12.7, not 1.96
        ((0.1, 0.1, 0.12, 0.12, 0.11), BEATS),
    ],
)
def test_verdicts_over_seeds(differences: tuple[float, ...], verdict: str) -> None:
    """Seeds that disagree do not make a winner, even when each is sure of itself."""
    pairs = compared(*({"difference": d, "ci_low": d - 0.05, "ci_high": d + 0.05} for d in differences))
    table = summarised(scores({}, BASE), pairs)
    assert table.set_index("method").loc["fine_tuned"].verdict == verdict


@pytest.mark.parametrize(("stamps", "verdict"), [((BEATS, BEATS), BEATS), ((BEATS, TIES), TIES), ((NO_VERDICT, NO_VERDICT), NO_VERDICT)])
def test_few_units_are_judged_by_their_stamps(stamps: tuple[str, ...], verdict: str) -> None:
    """An interval over few people is no test of theirs."""
    pairs = compared(*({"stamp": stamp, "test": SWAPS} for stamp in stamps))
    assert summarised(scores({}, BASE), pairs).set_index("method").loc["fine_tuned"].verdict == verdict


def test_a_seed_without_an_interval_leaves_no_verdict() -> None:
    unknown = {"ci_low": float("nan"), "ci_high": float("nan")}
    for pairs in (compared({}, {**unknown, "stamp": NO_VERDICT}), compared({}, unknown)):
        assert summarised(scores({}, BASE), pairs).set_index("method").loc["fine_tuned"].verdict == NO_VERDICT


def test_every_verdict_is_shown_and_counted(artifact: Callable[..., Path], tmp_path: Path) -> None:
    rows = scores(BASE, *({"method": f"m{k}"} for k in range(4)), {"fingerprint": "b0"})
    pairs = compared(*({"method": f"m{k}", "stamp": stamp, "test": SWAPS} for k, stamp in enumerate(STAMPS)))
    found = [artifact("scores", "t0", (artifact("baselines", "b0"), artifact("neurofmx_adapted", "f0")), scores=rows, comparisons=pairs)]
    report = write_scorecard(ScorecardConfig(size="tiny"), {"scores": found}, tmp_path)
    assert [report.metrics[stamp.replace(" ", "_")] for stamp in STAMPS] == [1, 1, 1, 1]
    page, (card,) = (tmp_path / "report.html").read_text(), (tmp_path / "cards").glob("*.md")
    for stamp in STAMPS:
        assert f"<th>{stamp}</th>" in page
        assert f">{stamp} (ridge: +0.100" in page
        assert f"| {stamp} (ridge: +0.100" in card.read_text()
    shown = dict(figures(gather({"scores": found})))
    (drawn,) = (figure for caption, figure in shown.items() if caption.startswith("Ours less the best"))
    assert {trace.name for trace in drawn.data if len(trace.x)} == set(STAMPS)


def test_the_report_shows_every_score(inputs: dict[str, list[Path]], tmp_path: Path) -> None:
    report = write_scorecard(ScorecardConfig(size="tiny"), inputs, tmp_path)
    page = (tmp_path / "report.html").read_text()
    for shown in ("0.890", "0.800", "fine_tuned", "ridge (baseline)", BEATS, "v-s0", "v-f0", 'id="b0"', "c0de"):
        assert shown in page, shown
    (card,) = (tmp_path / "cards").glob("*.md")
    text = card.read_text()
    assert "fine_tuned" in text
    assert "| shards | tiny-0 | s0 | v-s0 | c0de |" in text
    assert [c.passed for c in report.checks] == [True]
    assert report.metrics["beats_baseline"] == 1


def test_scaling_curves_show_every_cell(inputs: dict[str, list[Path]], artifact: Callable[..., Path]) -> None:
    cells = pd.DataFrame([(w, seed, w**2, w**3, 8 / w + seed) for w in (16, 32) for seed in (0, 1)])
    cells.columns = ["width", "seed", "parameters", "flops", "loss"]
    inputs["scaling_law"] = [artifact("scaling_law", "l0", cells=cells)]
    caption, figure = list(figures(gather(inputs)))[-1]
    assert caption.startswith("Scaling curves")
    (seeds, mean), by_compute = figure.data[:2], figure.data[3]
    assert sorted(seeds.y) == [0.25, 0.5, 1.25, 1.5]
    assert dict(zip(mean.x, mean.y, strict=True)) == {256: 1.0, 1024: 0.75}
    assert by_compute.x.tolist() == [4096, 32768]


def test_errors_are_better_the_smaller_they_are() -> None:
    near, far = {"task": "age", "metric": "mae", "value": 3.0}, {"task": "age", "metric": "mae", "value": 9.0, "method": "far"}
    table = scores(far, near, {"value": 0.1, "method": "worse"}, {})
    assert best_first(table).method.tolist() == ["fine_tuned", "far", "fine_tuned", "worse"]
    colours = heat_map(table[table.task == "age"], "mae").data[0]
    assert (colours.zmin, colours.zmax) == (3.0, 9.0)


def test_the_page_needs_no_network(inputs: dict[str, list[Path]], tmp_path: Path) -> None:
    write_scorecard(ScorecardConfig(size="tiny"), inputs, tmp_path)
    page = (tmp_path / "report.html").read_text()
    own = page[: page.index("<script>/**")] + page[page.rindex("</script><script>") :]
    assert "http" not in own
    assert "src=" not in own


def test_names_are_text_not_markup(inputs: dict[str, list[Path]], artifact: Callable[..., Path], tmp_path: Path) -> None:
    inputs["scores"].append(artifact("scores", "t1", scores=scores({"task": "</script><b>x"}), comparisons=compared({})))
    write_scorecard(ScorecardConfig(size="tiny"), inputs, tmp_path)
    assert "</script><b>x" not in (tmp_path / "report.html").read_text()


def test_a_number_without_a_source_is_told(inputs: dict[str, list[Path]], artifact: Callable[..., Path], tmp_path: Path) -> None:
    inputs["scores"].append(artifact("scores", "t1", scores=scores({"fingerprint": "gone"}), comparisons=compared({})))
    (check,) = write_scorecard(ScorecardConfig(size="tiny"), inputs, tmp_path).checks
    assert not check.passed
    assert check.numbers["untraced"] == 1


def test_ancestors_of_an_artifact_and_no_others(inputs: dict[str, list[Path]]) -> None:
    sources = gather(inputs).sources
    assert set(with_ancestors(sources, {"f0"}).fingerprint) == {"f0", "s0"}
    assert set(with_ancestors(sources, {"t0"}).fingerprint) == {"t0", "f0", "b0", "s0"}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"value": 0.9, "ci_low": 0.85, "ci_high": 0.95}, MET),
        ({"value": 0.8, "ci_low": 0.7, "ci_high": 0.9}, OPEN),
        ({"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}, REFUTED),
    ],
)
def test_a_target_is_judged_by_its_interval(found: dict[str, float], verdict: str) -> None:
    row = judge(evidence(scores(found, BASE))).set_index("target").loc["behaviour decoding"]
    assert row.verdict == verdict
    assert row.best_baseline == pytest.approx(0.8)
    assert row.supervised == pytest.approx(found["value"])


def test_forecasts_and_reconstructions_are_no_behaviour() -> None:
    rows = scores(
        {"task": "spikes_reconstruction", "value": 0.6, "ci_low": 0.55, "ci_high": 0.65}, {"task": "lfp_in_0.1s"}, {"task": "lfp_in_1s"}
    )
    verdicts = judge(evidence(rows)).set_index("target").verdict
    assert verdicts["behaviour decoding"] == UNMEASURED
    assert verdicts["neural reconstruction R2"] == MET


def test_targets_are_those_of_neurofmx_by_a_method_chosen_beforehand() -> None:
    """Neither an ablation nor another family, and not whichever is best on the test rows."""
    lucky = {"value": 0.99, "ci_low": 0.98, "ci_high": 1.0, "noise_ceiling": 1.0}
    others = [{"method": "fine_tuned, no pretraining"}, {"method": "fine_tuned", "family": "brainlm"}, {"method": "linear_probe"}]
    others += [{"task": "turning", "method": "fine_tuned, no pretraining"}]
    probed = [{"task": "speed", "method": m, "value": v, "noise_ceiling": 1.0} for m, v in (("linear_probe", 0.5), ("a_probe", 0.8))]
    rows = judge(evidence(scores({"value": 0.7, "noise_ceiling": 1.0}, *({**lucky, **row} for row in others), *probed))).set_index("target")
    for target in ("behaviour decoding", "share of the noise ceiling"):
        assert (rows.loc[target].value, rows.loc[target].tasks) == (pytest.approx(0.6), 2)


def test_tasks_too_few_to_tell_do_not_enter_a_target() -> None:
    """Neither three people on whom all guesses fail, nor a task without an interval; both are told."""
    asked = {"task": "diagnosis", "metric": "auroc", "recording": "all"}
    few = {**asked, "dataset": "three_people", "value": 0.0, "ci_low": 0.0, "ci_high": 0.3}
    blind = {**asked, "dataset": "rare", "value": 0.1, "ci_low": float("nan"), "ci_high": float("nan")}
    many = {**asked, "value": 0.9, "ci_low": 0.87, "ci_high": 0.93}
    pairs = compared({}, {**asked, "dataset": "three_people", "stamp": NO_VERDICT, "test": SWAPS, "pieces": 3.0})
    drawn = [{**row, "method": PROBE, "metric": "balanced_accuracy", "k_shot": 5.0} for row in (many, few, blind)]
    rows = judge(evidence(scores(many, few, blind), pairs, few_shot=scores(*drawn))).set_index("target")
    for target in ("disease AUROC", "five-shot accuracy"):
        row = rows.loc[target]
        assert (row.value, row.tasks, row.verdict) == (pytest.approx(0.9), 1, MET)
        assert row.note.endswith("; 2 left out: too few to tell")
    alone = judge(evidence(scores(few, blind), pairs)).set_index("target").loc["disease AUROC"]
    assert (alone.verdict, alone.tasks, pd.isna(alone.value)) == (UNMEASURED, 0, True)
    assert alone.note.endswith("; 2 left out: too few to tell")


def test_what_was_fitted_elsewhere_is_zero_shot_and_nothing_else() -> None:
    far = {"method": "zero_shot_probe_across_sessions", "recording": "b", "value": 0.1, "ci_low": 0.05, "ci_high": 0.15}
    table = judge(evidence(scores({}, far, {**far, "method": "seen_probe_across_subjects"}))).set_index("target")
    assert (table.loc["behaviour decoding"].value, table.loc["behaviour decoding"].tasks) == (0.9, 1)
    assert (table.loc["zero-shot"].value, table.loc["zero-shot"].tasks) == (0.1, 1)


def test_zero_shot_stands_beside_baselines_that_saw_all_labels() -> None:
    """They are fitted to the very place, so nothing that was fitted elsewhere holds them; a task that one lacks has no mean of all."""
    far = {"method": "zero_shot_probe_across_sessions", "value": 0.1, "ci_low": 0.05, "ci_high": 0.15}
    weak = {**BASE, "method": "knn", "value": 0.4}
    row = judge(evidence(scores({}, BASE, weak, far))).set_index("target").loc["zero-shot"]
    assert (row.value, row.best_baseline, row.supervised) == (pytest.approx(0.1), pytest.approx(0.8), pytest.approx(0.9))
    row = judge(evidence(scores({}, BASE, far, {**far, "recording": "b"}))).set_index("target").loc["zero-shot"]
    assert (row.tasks, pd.isna(row.best_baseline)) == (2, True)


def test_few_shots_stand_beside_baselines_that_saw_the_same() -> None:
    drawn = {"metric": "balanced_accuracy", "k_shot": 5.0, "ci_low": 0.75, "ci_high": 0.85}
    said = {(PROBE, "a"): 0.8, (PROBE, "b"): 0.8, (RAW, "a"): 0.7, (RAW, "b"): 0.5, (SCRATCH, "a"): 0.9, (SCRATCH, "b"): 0.4}
    rows = [{**drawn, "method": m, "task": t, "value": v, "family": "neurofmx" if m == PROBE else "baseline"} for (m, t), v in said.items()]
    more = [{**row, "k_shot": 10.0, "value": 0.99} for row in rows]
    full = scores({"task": "a"}, {"task": "b", "value": 0.95})
    row = judge(evidence(full, few_shot=scores(*rows, *more))).set_index("target").loc["five-shot accuracy"]
    assert (row.best_baseline, row.supervised) == (pytest.approx(0.65), pytest.approx(0.925))
    lacking = judge(evidence(full, few_shot=scores(*rows[:-1]))).set_index("target").loc["five-shot accuracy"]
    assert lacking.best_baseline == pytest.approx(0.6), "a mean of other tasks is no reference"


def test_baselines_of_few_labels_are_a_share_of_what_ours_reaches_with_all() -> None:
    raw = {**ALL, "method": RAW, "family": "baseline"}
    rows = scores(ALL, *shots(ALL, (5.0, 0.8)), {**raw, "value": 0.7}, *shots(raw, (5.0, 0.6)))
    assert share_of_full(rows, examples(velocity=(101, 2))).best_baseline == pytest.approx(0.25)


def test_a_target_that_is_to_be_small() -> None:
    of_age = {"task": "age", "metric": "mae", "ci_low": 1.0, "value": 2.0, "ci_high": 2.5}
    row = judge(evidence(scores(of_age))).set_index("target").loc["age, mean absolute error (years)"]
    assert (row.wanted, row.verdict) == ("<= 3", MET)


def test_the_noise_ceiling_is_a_share() -> None:
    row = (
        judge(evidence(scores({"noise_ceiling": 0.95, "ci_low": 0.89, "ci_high": 0.91})))
        .set_index("target")
        .loc["share of the noise ceiling"]
    )
    assert (row.value, row.verdict) == (pytest.approx(0.9 / 0.95), MET)


def test_a_ceiling_that_baselines_alone_come_near_is_not_measured() -> None:
    rows = judge(evidence(scores({}, {**BASE, "task": "encoded", "noise_ceiling": 0.8}))).set_index("target")
    row = rows.loc["share of the noise ceiling"]
    assert (row.verdict, row.best_baseline) == (UNMEASURED, pytest.approx(1.0))


ALL = {"metric": "auroc", "method": PROBE, "value": 0.9, "ci_low": 0.86, "ci_high": 0.94}


def shots(of: dict[str, object], *values: tuple[float, float]) -> list[dict[str, object]]:
    """Rows of (examples of each class, value)."""
    return [{**of, "k_shot": k, "value": v, "ci_low": v - 0.03, "ci_high": v + 0.03} for k, v in values]


def share_of_full(rows: pd.DataFrame, counts: pd.DataFrame, **more: pd.DataFrame) -> pd.Series:
    return judge(evidence(scores(), few_shot=rows, examples=counts, **more)).set_index("target").loc["share of full performance"]


def test_few_labels_against_all_labels() -> None:
    """Of 101 examples of two classes, five of each are less than a tenth, ten are not."""
    few = shots(ALL, (1.0, 0.6), (5.0, 0.8), (10.0, 0.88))
    blind = [{**row, "task": "blind", "value": 0.55} for row in (ALL, few[1])]
    scarce = [{**row, "task": "scarce"} for row in (ALL, *shots(ALL, (1.0, 0.9)))]
    others = [{**row, "method": "linear_probe_of_seen_labels", "value": 0.9} for row in (ALL, few[1])]
    others += [{**row, "family": "brainlm", "value": 0.7} for row in (ALL, few[1])]
    row = share_of_full(scores(ALL, *few, *blind, *scarce, *others), examples(velocity=(101, 2), blind=(101, 2), scarce=(20, 2)))
    assert (row.value, row.tasks) == (pytest.approx(0.75), 1), "above chance, where there is something to be had"
    assert row.ci_high - row.value == pytest.approx((0.03**2 + (0.75 * 0.04) ** 2) ** 0.5 / 0.4), "all labels are in doubt too"
    assert row.note.startswith("AUROC above chance, less than 10 % of the labels")
    assert share_of_full(scores(ALL, *few), examples(velocity=(100, 2))).value == pytest.approx(0.25)
    assert share_of_full(scores(ALL, *few), examples(velocity=(20, 2))).verdict == UNMEASURED
    assert share_of_full(scores(ALL, *few), examples()).verdict == UNMEASURED


def test_examples_count_once_for_all_seeds(artifact: Callable[..., Path]) -> None:
    tables = {"scores": scores(ALL), "examples": examples(velocity=(101, 2))}
    found = gather({"few_shot": [artifact("few_shot", name, **tables) for name in ("k0", "k1")]})
    assert (len(found.few_shot), found.examples.to_dict("list")["examples"]) == (2, [101])


def test_transfer_leaves_the_diagonal_out() -> None:
    cells = [("a", "a", 0.9), ("b", "a", 0.72), ("c", "a", 0.70), ("a", "b", 0.7), ("a", "c", 0.72)]
    cells_ = pd.DataFrame(
        [
            {"axis": axis, "source": s, "target": t, "task": "velocity", "metric": metric, "value": v, "within": 0.9, "chance": chance}
            for s, t, v in cells
            for axis, metric, chance in (("species", "r2", 0.0), ("species", "r2", 0.0), ("modality", "auroc", 0.5))
        ]
    )
    rows = judge(evidence(scores(), transfer=cells_)).set_index("target")
    row = rows.loc["cross-species transfer"]
    assert (row.value, row.tasks, row.verdict) == (pytest.approx(0.71), 3, MET), "neither seeds nor sources are places of their own"
    assert row.ci_high - row.value == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3), "Student's t with two degrees of freedom"
    assert rows.loc["cross-modal retention"].value == pytest.approx(0.21 / 0.4)
    two = judge(evidence(scores(), transfer=cells_[~(cells_.source + cells_.target).str.contains("c")])).set_index("target")
    assert two.loc["cross-species transfer"].verdict == UNMEASURED


def test_curves_are_as_sure_as_their_tasks_are_many() -> None:
    rows = [{"task": f"t{k}", "k_shot": 5.0, "value": 0.1 * k} for k in range(3)] + [{"task": "t0", "k_shot": 10.0}]
    (curve,) = (figure for caption, figure in figures(evidence(scores({}), few_shot=scores(*rows))) if caption.startswith("Few-shot"))
    assert curve.data[0].error_y.array.tolist() == pytest.approx([4.3027 * 0.1 / 3**0.5, 0.0], rel=1e-3)


def test_the_same_people_count_once() -> None:
    error = {"task": "age", "metric": "mae", "recording": "all"}
    sites = [{**error, "dataset": name, "value": 9.0, "ci_low": 8.0, "ci_high": 10.0} for name in ("abide_nyu", "abide_yale")]
    together = {**error, "dataset": "abide", "value": 2.0, "ci_low": 1.5, "ci_high": 2.5}
    alone = judge(evidence(scores(*sites))).set_index("target").loc["age, mean absolute error (years)"]
    pooled = judge(evidence(scores(*sites, together))).set_index("target").loc["age, mean absolute error (years)"]
    assert (alone.value, alone.tasks, alone.verdict) == (9.0, 2, REFUTED)
    assert (pooled.value, pooled.tasks, pooled.verdict) == (2.0, 1, MET)


def test_nothing_made_is_nothing_claimed(tmp_path: Path) -> None:
    report = write_scorecard(ScorecardConfig(size="tiny"), {}, tmp_path)
    assert set(pd.read_parquet(tmp_path / "targets.parquet").verdict) == {UNMEASURED}
    assert report.metrics["tasks"] == 0
