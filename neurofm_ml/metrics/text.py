"""Scores of decoded language."""

from collections import Counter
from collections.abc import Sequence
from math import exp, log
from typing import Literal


def bleu(
    references: Sequence[Sequence[str]], said: Sequence[Sequence[str]], max_n: int = 4, smoothing: Literal["none", "add_one"] = "none"
) -> float:
    """BLEU of a corpus, 0 to 1 (Papineni et al. 2002), one reference for each sentence, both as words.

    The geometric mean over n of the share of n-grams of 1 to `max_n` words that are in the reference, as often at most as
    there, times a penalty where less is said than was there. smoothing "none": 0 as soon as there is no match of one n, as in
    the definition; "add_one": one match and one n-gram more for n > 1 (Lin and Och 2004), for short texts.
    """
    if len(references) != len(said) or not said:
        raise ValueError(
            f"{len(references)} references and {len(said)} sentences said; BLEU needs one reference for each, and at least one."
        )
    pairs = list(zip(references, said, strict=True))
    shares = []
    for n in range(1, max_n + 1):
        more = smoothing == "add_one" and n > 1
        matches = more + sum((_ngrams(r, n) & _ngrams(s, n)).total() for r, s in pairs)
        possible = more + sum(max(len(s) - n + 1, 0) for s in said)
        if not matches:
            return 0.0
        shares.append(matches / possible)
    n_true, n_said = sum(map(len, references)), sum(map(len, said))
    return exp(sum(map(log, shares)) / max_n + min(0.0, 1 - n_true / n_said))


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
