"""UK Biobank: nothing is served to programs outside its platform; its own tools bring the files, listed by this adapter.

`FIELDS` says what the fields are called here; `bulk_list` writes what the program ``ukbfetch`` takes.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from neurofm_ml.data.sources.base import RemoteFile
from neurofm_ml.knowledge.cards import ArchiveSpec

ACCESS = (
    "apply at https://www.ukbiobank.ac.uk for an approved project; on its platform write the list with "
    "neurofm_ml.data.sources.ukbiobank.bulk_list, run `ukbfetch -a<key file> -b<list>`, and unpack below the dataset's folder."
)

#: Field id -> name of the column. Instance 2 is the first imaging visit.
FIELDS: Mapping[str, str] = {
    "31": "sex",
    "21003": "age",
    "54": "site",
    "20016": "fluid_intelligence",
    "20023": "reaction_time",
    "25741": "head_motion_rest",
    "25735": "inverted_snr",
    "26521": "intracranial_volume",
}


def list_files(archive: ArchiveSpec) -> list[RemoteFile]:
    """Never: UK Biobank has no address that a program could download from."""
    raise ValueError("UK Biobank hands its files to approved projects only, through its own platform.")


def columns(header: Iterable[str], instance: int) -> dict[str, str]:
    """Columns of a UK Biobank table -> their names here, at one visit. Columns read ``31-0.0`` or ``p31_i0``."""
    spelled = {spelling: name for field, name in FIELDS.items() for spelling in _spellings(field, instance)}
    return {column: spelled[column] for column in header if column in spelled}


def _spellings(field: str, instance: int) -> Iterable[str]:
    """A field that was asked once stands without a visit, or with visit 0."""
    visits = (0, instance) if field == "31" else (instance,)
    return [s for v in visits for s in (f"{field}-{v}.0", f"p{field}_i{v}", f"p{field}")]


def read_table(path: Path, instance: int = 2) -> dict[str, dict[str, str]]:
    """A UK Biobank csv -> participant -> column -> value, for the fields of `FIELDS` that it has; empty cells are left out."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        named = columns(rows.fieldnames or (), instance)
        if "eid" not in (rows.fieldnames or ()) or not named:
            raise ValueError(f"{path} has no column eid and none of the fields {', '.join(FIELDS)}; it is no UK Biobank table.")
        return {row["eid"]: {name: row[column] for column, name in named.items() if row[column]} for row in rows}


def bulk_list(participants: Iterable[str], field: str, out: Path, instance: int = 2) -> None:
    """Write what ``ukbfetch -b`` takes: a line ``<participant> <field>_<visit>_0`` for each file."""
    out.write_text("".join(f"{person} {field}_{instance}_0\n" for person in participants))
