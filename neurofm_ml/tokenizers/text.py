"""Text as vectors: an encoder by hashing that is always there, and a sentence encoder where one was downloaded.

Shapes: n texts, W width of the encoder.
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class TextEncoder(Protocol):
    """Gives each text a vector of length `width`, the same whatever stands beside it."""

    width: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, W) float32."""


class HashingEncoder:
    """Mean over words of the hashed pieces of each word, 3 to 5 letters long, and of the word itself.

    Bojanowski et al. 2017 (pieces of words), Weinberger et al. 2009 (hashing with signs): words that look alike are alike,
    no word is unknown, and nothing is learned or downloaded.
    """

    def __init__(self, width: int = 256) -> None:
        self.width = width

    def __call__(self, texts: Sequence[str]) -> Tensor:
        words = [text.casefold().split() for text in texts]
        empty = torch.zeros(self.width)
        vectors = [torch.stack([_hashed(word, self.width) for word in own]).mean(0) if own else empty for own in words]
        return torch.stack(vectors) if vectors else torch.zeros(0, self.width)


@lru_cache(maxsize=65536)
def _hashed(word: str, width: int) -> Tensor:
    """(W,) of length 1."""
    whole = f"<{word}>"
    pieces = {whole[i : i + n] for n in (3, 4, 5) for i in range(len(whole) - n + 1)} | {whole}
    codes = torch.tensor([zlib.crc32(piece.encode()) for piece in sorted(pieces)])
    signs = torch.where(codes % 2 == 0, 1.0, -1.0)
    vector = torch.zeros(width).index_add_(0, codes // 2 % width, signs)
    # Pieces that meet with opposite signs may leave nothing.
    return vector / vector.norm().clamp(min=1)


class SentenceEncoder:
    """A transformer of the Hugging Face hub that was downloaded to `folder`: the mean of its last hidden states, not trained further."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._split: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self.width: int = self._model.config.hidden_size

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        split = self._split(list(texts), padding=True, truncation=True, return_tensors="pt")
        states, mask = self._model(**split).last_hidden_state, split["attention_mask"][..., None]
        mean: Tensor = (states * mask).sum(1) / mask.sum(1)
        return mean
