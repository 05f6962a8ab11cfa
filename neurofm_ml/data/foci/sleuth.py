"""Sleuth text (BrainMap, GingerALE): peaks under headings.

// Reference=MNI
// Smith et al., 2010: faces > houses
// Subjects=20
-16  -58  -22
"""

import re
from pathlib import Path

from neurofm_ml.data.foci.rows import Row, as_foci
from neurofm_ml.data.foci.space import space_of
from neurofm_ml.types import Foci

_REFERENCE = re.compile(r"//\s*Reference\s*=\s*(.*)", re.IGNORECASE)
_SUBJECTS = re.compile(r"//\s*Subjects\s*=\s*(\d+)", re.IGNORECASE)


def is_sleuth(path: Path, head: bytes) -> bool:
    return re.match(rb"(\xef\xbb\xbf)?\s*//\s*Reference\s*=", head, re.IGNORECASE) is not None


def read_sleuth(path: Path) -> Foci:
    """Every peak of a file. Raises ValueError naming the line that is wrong."""
    try:
        whole = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as that, or get it again.") from None
    lines = [(k, text) for k, line in enumerate(whole.splitlines(), 1) if (text := line.strip())]
    reference = _REFERENCE.match(lines[0][1]) if lines else None
    space = space_of(reference[1]) if reference else ""
    if space not in ("MNI", "TAL"):
        raise ValueError(
            f"{path}, line 1: Sleuth text begins with '// Reference=MNI' or '// Reference=Talairach'; it is {lines[0][1] if lines else ''!r}."
        )
    rows: list[Row] = []
    heading: list[str] = []
    size: int | None = None
    for number, text in lines[1:]:
        if match := _SUBJECTS.match(text):
            size = int(match[1])
        elif text.startswith("//"):
            heading, size = ([] if size is not None else heading) + [text.lstrip("/ ")], None
        elif size is None:
            raise ValueError(
                f"{path}, line {number}: the experiment {' '.join(heading)!r} has no '// Subjects=' line before its peaks; add it."
            )
        else:
            study, contrast = named(" ".join(heading))
            rows.append(Row(study, f"{study}-{contrast}", space, _peak(path, number, text), sample_size=size))
    return as_foci(rows, path.name)


def _peak(path: Path, number: int, text: str) -> tuple[float, float, float]:
    try:
        x, y, z = map(float, text.split())
    except ValueError:
        raise ValueError(f"{path}, line {number}: {text!r} is no peak; it needs three numbers, x, y and z in millimetres.") from None
    return x, y, z


def named(heading: str) -> tuple[str, str]:
    """(study, contrast): parted at the first ; or : after the year, else at the first ; or else : of all, as NiMARE does."""
    year = re.search(r"(?:19|20)\d{2}", heading)
    after = re.search("[;:]", heading[year.end() :]) if year else None
    anywhere = next((heading.index(mark) for mark in ";:" if mark in heading), len(heading))
    at = year.end() + after.start() if year and after else anywhere
    return heading[:at].strip() or heading, heading[at + 1 :].strip() or "analysis_1"
