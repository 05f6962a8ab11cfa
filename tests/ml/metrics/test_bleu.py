"""BLEU against figures that can be worked out by hand."""

from math import exp

import pytest

from neurofm_ml.metrics import bleu

CAT = ["the", "cat", "is", "on", "the", "mat"]


@pytest.mark.parametrize(
    ("said", "max_n", "smoothing", "expected"),
    [
        (CAT, 4, "none", 1.0),
        (["the", "the", "the", "the", "the", "the", "the"], 1, "none", 2 / 7),  # Papineni et al. 2002, their second example: clipped at two
        (["the", "cat", "sat", "on", "the", "mat"], 2, "none", (5 / 6 * 3 / 5) ** 0.5),
        (["the", "cat", "sat", "on", "the", "mat"], 4, "none", 0.0),  # no four words in a row
        (["the", "cat", "sat", "on", "the", "mat"], 4, "add_one", (5 / 6 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25),
        (["the", "cat", "is"], 3, "none", exp(1 - 6 / 3)),  # all right, half as long
        ([], 1, "none", 0.0),
    ],
)
def test_one_sentence(said: list[str], max_n: int, smoothing: str, expected: float) -> None:
    assert bleu([CAT], [said], max_n, smoothing) == pytest.approx(expected)  # type: ignore[arg-type]


def test_a_corpus_pools_its_counts() -> None:
    # 6 of 6 and 1 of 2 words: 7 of 8, not the mean of 1 and 1/2; lengths 8 and 8, so no penalty.
    assert bleu([CAT, ["a", "b"]], [CAT, ["a", "c"]], 1) == pytest.approx(7 / 8)
    # A short sentence is made up for by a long one.
    assert bleu([CAT, ["a", "b"]], [CAT, ["a", "b", "a"]], 1) == pytest.approx(8 / 9)


@pytest.mark.parametrize("said", [[], [CAT, CAT]])
def test_sentences_need_a_reference_each(said: list) -> None:
    with pytest.raises(ValueError, match="one reference for each"):
        bleu([CAT], said)
