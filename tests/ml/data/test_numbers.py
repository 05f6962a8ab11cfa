"""Plain tables parsed at once hold the same numbers as cell by cell; what is not plain is left to the careful reader."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data.readers.numbers import read_numbers
from neurofm_ml.data.readers.tables import read_table

PLAIN = {
    "header.csv": "a,b\n1,2.5\n-3e-2,4\n",
    "bare.csv": "1,2\n3,4\n",
    "missing.csv": "a,b\nNA,1\n,n/a\nNaN,nan\n",
    "bom.csv": "\ufeffa;b\n1;2\ninf;-inf\n",
    "blank.tsv": "a\tb\n\n1\t2\n\n3\t4\n",
    "quoted.csv": 'a,b\n"1","2"\n',
    "windows.csv": "a, b\r\n1,2\r\n",
    "zipped.csv.gz": "a,b\n1,2\n",
    "late.csv": "a,b\n" + "1,2\n" * 300_000 + "1.5,2\n",
}
NOT_PLAIN = {
    "word.csv": "a,b\n1,x\n",
    "ragged.csv": "a,b\n1,2\n3\n",
    "comment.csv": "#made by hand\na,b\n1,2\n",
    "comment_inside.csv": "a,b\n1,2\n# c\n3,4\n",
    "blanks.txt": "1 2\n3 4\n",
    "repeated.csv": "a,a\n1,2\n",
    "binary.csv": "a,b\n\x00,2\n",
}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", PLAIN)
def test_plain_tables_agree(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, PLAIN[name])
    fast, careful = read_numbers(path, ("",)), read_table(path)
    assert fast is not None
    assert (fast.header, fast.named) == (careful.header, careful.named)
    np.testing.assert_array_equal(fast.numbers(fast.header), careful.numbers(careful.header))


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_is_left_alone(tmp_path: Path, name: str) -> None:
    assert read_numbers(written(tmp_path, name, NOT_PLAIN[name]), ("",)) is None


def test_words_beside_the_columns_asked_for_do_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "t,word,x\n0,rest,1\n1,task,2\n")
    table = read_numbers(path, ("x", "t"))
    assert table is not None
    np.testing.assert_array_equal(table.numbers(["x", "t"]), [[1, 0], [2, 1]])
    assert read_numbers(path, ("y",)) is None
