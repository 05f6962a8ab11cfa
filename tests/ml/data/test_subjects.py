"""Who was recorded: one row per subject, ages that are numbers, what a table says in other words."""

from pathlib import Path

import pytest

from neurofm_ml.data.readers.subjects import subject_of
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SubjectTable
from neurofm_ml.types import Subject


def make_card(root: Path, text: str, **table: object) -> DatasetCard:
    (root / "participants.tsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    fields = {"age": "age", "sex": "sex", "family": "fam"}
    return DatasetCard(
        name="d", title="t", species="s", licence="l", source="me", reader="arrays", root=str(root), signals={}, grid_hz=1, window_s=1, stride_s=1,
        subjects=SubjectTable(**{"file": "participants.tsv", "key": "participant_id", "match": "sub-{id}", "fields": fields} | table),  # type: ignore[arg-type]
    )  # fmt: skip


def test_blanks_codes_and_the_mark_at_the_head_of_a_file(tmp_path: Path) -> None:
    text = "participant_id\tage\tsex\tfam\nsub-1\t12.5\tM\tn/a\nsub-2\tn/a\t-9999\tf1\n"
    card = make_card(tmp_path, text, codes={"sex": {"M": "male"}}, missing=("", "n/a", "-9999"))
    assert subject_of(card, RecordingSpec(id="1")) == Subject("1", age=12.5, sex="male")
    assert subject_of(card, RecordingSpec(id="2")) == Subject("2", family="f1")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("sub-1\t1\tM\tf\nsub-1\t2\tM\tf", "column 'participant_id' has 2 rows 'sub-1' for recording '1'; keep one row per subject"),
        ("sub-2\t1\tM\tf", "column 'participant_id' has no row 'sub-1' for recording '1'; add it"),
        ("sub-1\t89+\tM\tf", r"column 'age' holds the age '89\+', no number; give it codes"),
    ],
)
def test_doubtful_rows_are_refused(tmp_path: Path, rows: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        subject_of(make_card(tmp_path, f"participant_id\tage\tsex\tfam\n{rows}\n"), RecordingSpec(id="1"))
