"""The report as one HTML file: plots that answer to the mouse, light and dark, readable without a network."""

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neurofm_ml.evaluation.scorecard.cards import verdict
from neurofm_ml.evaluation.scorecard.evidence import CASE, Evidence, rows_of
from neurofm_ml.evaluation.scorecard.figures import figures, names
from neurofm_ml.evaluation.scoring.scores import BASELINE, BEATS, LOSES, NO_VERDICT, STAMPS, TIES

MARKS = {BEATS: "good", LOSES: "bad", TIES: "even", NO_VERDICT: "even", "met": "good", "refuted": "bad", "open": "even", "not measured": "even"}  # fmt: skip


def write_page(title: str, evidence: Evidence, targets: pd.DataFrame, path: Path) -> None:
    """Write the report to `path`."""
    from plotly.offline import get_plotlyjs

    body = "\n".join(_body(title, evidence, targets))
    # A closing tag inside the script would end it; JSON and the library hold none, which is cheap to make sure of.
    library = get_plotlyjs().replace("</script", "<\\/script")
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}'
        f"<script>{library}</script><script>{SCRIPT}</script></body></html>"
    )


def _body(title: str, evidence: Evidence, targets: pd.DataFrame) -> Iterator[str]:
    table = evidence.summary
    yield f'<header><h1>{html.escape(title)}</h1><button id="theme" type="button">light / dark</button></header>'
    yield _tally(table)
    yield "<h2>Targets</h2>" + _target_table(targets)
    yield "<h2>Plots</h2>"
    for number, (caption, figure) in enumerate(figures(evidence)):
        yield f'<figure><figcaption>{html.escape(caption)}</figcaption><div class="plot" id="plot-{number}" style="height:{figure.layout.height}px"></div>'
        yield f'<script type="application/json" data-for="plot-{number}">{_inline(figure.to_json())}</script></figure>'
    yield "<h2>Scores</h2>" + LEGEND + _score_table(table)
    if len(evidence.identity):
        yield "<h2>Who against what</h2><p>Share of the variance of the embeddings that subjects, sessions and tasks explain.</p>"
        yield _plain_table(evidence.identity)
    yield "<h2>Where the numbers come from</h2>" + _source_table(evidence.sources)


def _tally(table: pd.DataFrame) -> str:
    """How many tasks there are, and how often each method has each verdict against the best baseline of a task."""
    ours = table[table.verdict.notna()]
    cases, asked = (len(part[CASE].drop_duplicates()) for part in (table, table[table.family != BASELINE]))
    said = f"<p>{cases} tasks, {table.method.nunique()} methods; {cases - asked} tasks only baselines answer.</p>"
    counts = ours.groupby("method").verdict.value_counts().unstack(fill_value=0).reindex(columns=[*STAMPS], fill_value=0)
    rows = [[_text(method), *(f"{n}" for n in row)] for method, row in zip(counts.index, counts.to_numpy(), strict=True)]
    return said + (_table(("against the best tuned baseline of each task", *STAMPS), rows) if rows else "<p>Nothing compared.</p>")


def _target_table(targets: pd.DataFrame) -> str:
    head = ("target", "wanted", "verdict", "value [95 %]", "best baseline", "fully supervised", "tasks", "measured as")
    rows = [
        [
            _text(r.target), _text(r.wanted), _mark(str(r.verdict)), _interval(r.value, r.ci_low, r.ci_high), _number(r.best_baseline),
            _number(r.supervised), "" if pd.isna(r.tasks) else f"{r.tasks:.0f}", _text(r.note),
        ]
        for r in rows_of(targets)
    ]  # fmt: skip
    return _table(head, rows)


def _score_table(table: pd.DataFrame) -> str:
    head = ("task", "method", "metric", "value [95 %]", "seeds", "ceiling", "control", "p", "verdict", "parameters", "train s", "samples/s", "artifacts")  # fmt: skip
    rows = [
        [
            _text(case), _text(r.method + (" (baseline)" if r.family == BASELINE else "")), _text(r.metric),
            _interval(r.value, r.ci_low, r.ci_high), f"{r.seeds}", _number(r.noise_ceiling), _number(r.control), f"{r.p:.2g}",
            _mark(r.verdict, verdict(r)) if isinstance(r.verdict, str) else "", f"{r.parameters:,}", f"{r.train_seconds:.1f}",
            f"{r.samples_per_second:,.0f}", _links(r.fingerprints),
        ]
        for case, r in zip(names(table), rows_of(table), strict=True)
    ]  # fmt: skip
    return '<input class="filter" placeholder="show rows that contain ..." data-for="scores">' + _table(head, rows, "scores")


def _source_table(sources: pd.DataFrame) -> str:
    head = ("asset", "partition", "fingerprint", "data version", "code", "finished", "made from")
    rows = [
        [
            _text(r.asset), _text(r.partition), f'<span id="{html.escape(r.fingerprint)}">{_text(r.fingerprint)}</span>',
            _text(r.data_version), _text(r.code), _text(r.finished), _links(r.made_from),
        ]
        for r in rows_of(sources)
    ]  # fmt: skip
    return _table(head, rows, "sources")


def _plain_table(table: pd.DataFrame) -> str:
    return _table([str(c) for c in table], [[_number(v) if isinstance(v, float) else _text(v) for v in row] for row in rows_of(table)])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], name: str = "") -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table id="{name}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: Any) -> str:
    return html.escape(str(value))


def _number(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _interval(value: Any, low: Any, high: Any) -> str:
    return "" if pd.isna(value) else f"{value:.3f} <small>[{low:.3f}, {high:.3f}]</small>"


def _mark(word: str, text: str = "") -> str:
    return f'<span class="{MARKS[word]}">{html.escape(text or word)}</span>'


def _links(fingerprints: str) -> str:
    return " ".join(f'<a href="#{html.escape(name)}">{html.escape(name[:8])}</a>' for name in fingerprints.split())


def _inline(text: str) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(json.loads(text)).replace("<", "\\u003c")


LEGEND = """<p>Values on held-out windows that nothing was fitted or chosen on, with 95 % intervals (blocks of time, or whole people and
trials, resampled; over seeds, their spread added). Control: the same on labels moved in time or permuted. The verdict is a paired
comparison with the best baseline of the task, taken as the best on the test windows themselves, to the baseline's advantage; where
the people or trials are so few that no answers could decide it, they are too few to tell.</p>"""

STYLE = """
:root { --paper: #ffffff; --ink: #202124; --faint: #dadce0; --good: #137333; --bad: #c5221f; --even: #5f6368; --link: #1a56c4 }
:root[data-theme=dark] { --paper: #16181d; --ink: #e8eaed; --faint: #3c4043; --good: #81c995; --bad: #f28b82; --even: #9aa0a6; --link: #8ab4f8 }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 0 auto; padding: 1rem }
header { display: flex; justify-content: space-between; align-items: center } h1 { font-size: 1.5rem } h2 { margin-top: 2.5rem; font-size: 1.15rem }
figure { margin: 1.5rem 0 } figcaption { color: var(--even) } .wide { overflow-x: auto; max-height: 70vh }
table { border-collapse: collapse; font-size: 13px } th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--faint); white-space: nowrap }
td:last-child { white-space: normal; min-width: 14rem }
th { position: sticky; top: 0; background: var(--paper); cursor: pointer } small { color: var(--even) } a { color: var(--link) }
.good { color: var(--good) } .bad { color: var(--bad) } .even { color: var(--even) }
button, input { background: var(--paper); color: var(--ink); border: 1px solid var(--even); border-radius: 4px; padding: .3rem .6rem; font: inherit }
.filter { margin-bottom: .5rem; width: 20rem }
"""

SCRIPT = """
const root = document.documentElement, plots = [...document.querySelectorAll('script[data-for]')];
const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
function draw() {
  const axis = { gridcolor: colour('--faint'), zerolinecolor: colour('--even'), linecolor: colour('--faint') };
  for (const source of plots) {
    const { data, layout } = JSON.parse(source.textContent);
    const axes = Object.keys({ xaxis: 0, yaxis: 0, ...layout }).filter(name => /^[xy]axis/.test(name));
    const themed = { ...layout, template: null, paper_bgcolor: colour('--paper'), plot_bgcolor: colour('--paper'),
      font: { color: colour('--ink'), size: 12 }, margin: { t: 20, r: 20, b: 50, l: 60 }, hovermode: 'closest',
      legend: { orientation: 'h', y: 1, yanchor: 'bottom' } };
    for (const name of axes) themed[name] = { ...axis, ...layout[name] };
    for (const shape of themed.shapes || []) shape.line = { ...shape.line, color: colour('--ink') };
    Plotly.react(source.dataset.for, data, themed, { responsive: true, displaylogo: false });
  }
}
function theme(name) { root.dataset.theme = name; draw(); }
const dark = matchMedia('(prefers-color-scheme: dark)');
dark.addEventListener('change', event => theme(event.matches ? 'dark' : 'light'));
document.getElementById('theme').addEventListener('click', () => theme(root.dataset.theme === 'dark' ? 'light' : 'dark'));
theme(dark.matches ? 'dark' : 'light');
for (const input of document.querySelectorAll('.filter')) input.addEventListener('input', () => {
  const wanted = input.value.toLowerCase();
  for (const row of document.getElementById(input.dataset.for).tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
for (const head of document.querySelectorAll('th')) head.addEventListener('click', () => {
  const body = head.closest('table').tBodies[0], k = head.cellIndex, down = head.dataset.down = head.dataset.down === '1' ? '' : '1';
  const key = row => { const text = row.cells[k].textContent, number = parseFloat(text.replace(/,/g, '')); return isNaN(number) ? text : number; };
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (down ? 1 : -1);
  body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
});
"""
