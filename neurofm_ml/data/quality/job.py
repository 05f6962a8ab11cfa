"""The job `assess_quality`: recordings -> numbers, checks, a text and a picture."""

from pathlib import Path

from tqdm import tqdm

from neurofm_ml.data.duplicates import repeats, sketch
from neurofm_ml.data.quality.judge import claims, judge
from neurofm_ml.data.quality.measure import as_table, measure
from neurofm_ml.data.quality.report import draw, write_markdown
from neurofm_ml.data.recordings import load_card, load_recordings
from neurofm_ml.data.schemas import QUALITY, validate
from neurofm_ml.presets import QualityConfig
from neurofm_ml.types import Report


def assess(cfg: QualityConfig, recordings: Path, out: Path) -> Report:
    """A recordings artifact -> `quality.parquet` (a row per recording and signal), `quality.md`, `quality.png`, checks."""
    card = load_card(recordings)
    rows, sketches = [], []
    for recording in tqdm(load_recordings(recordings), desc=f"quality of {card.name}", unit="recording", disable=None):
        rows += measure(recording, card)
        sketches += sketch(recording)
    table = as_table(rows)
    table.to_parquet(out / "quality.parquet", index=False)
    claimed = claims(table, cfg, card)
    checks = (*judge(table, cfg, card, repeats(sketches)), validate(table, QUALITY))
    write_markdown(table, checks, claimed, out / "quality.md")
    draw(claimed, table, out / "quality.png")
    metrics = {
        "recordings": table.recording.nunique(),
        "seconds": float(table.groupby("recording").duration_s.max().sum()),
        "missing": float(table.missing.max()),
        "flat_channels": int(table.flat.sum()),
        "zero_channels": int(table.zero.sum()),
        "warnings": sum(not c.passed for c in checks),
    }
    return Report(metrics, checks, {"report": "quality.md", "quality": "quality.png", "table": "quality.parquet"})
