"""Encoders of text: what hashing promises, and a sentence encoder made here."""

import json
from pathlib import Path

import pytest
import torch

from neurofm_ml.tokenizers import HashingEncoder, SentenceEncoder
from neurofm_ml.tokenizers.text import TextEncoder


def likeness(a: str, b: str) -> float:
    return float(torch.cosine_similarity(*HashingEncoder()([a, b]), dim=0))


def test_words_that_look_alike_are_alike():
    assert likeness("listening", "listened") > 0.4
    assert abs(likeness("listening", "rabbit")) < 0.2
    assert likeness("Rabbit", "rabbit") == pytest.approx(1)
    assert likeness("white rabbit", "rabbit") > 0.6


def test_no_word_is_unknown_and_none_is_long():
    words = HashingEncoder(32)(["a", "supercalifragilisticexpialidocious", "7", "ünïcödé", "word1"])
    assert words.shape == (5, 32)
    assert ((words.norm(dim=1) - 1).abs() < 1e-5).all()
    assert HashingEncoder(32)([""]).norm() == 0


def test_vectors_are_the_same_in_every_process():
    """Python's own hash is not."""
    first = HashingEncoder(16)(["down the hole"])[0]
    assert first[:4].tolist() == pytest.approx([0.0, -0.1179, -0.0124, 0.3411], abs=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer of two layers as it would be downloaded, its weights random."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    letters = [chr(k) for k in range(97, 123)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    cfg = BertConfig(vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(cfg).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_sentence_encoder_reads_each_text_by_itself(folder):
    encoder: TextEncoder = SentenceEncoder(folder)
    assert encoder.width == json.loads((folder / "config.json").read_text())["hidden_size"] == 16
    together = encoder(["alice", "down the rabbit hole"])
    assert together.shape == (2, 16)
    assert torch.allclose(together[0], encoder(["alice"])[0], atol=1e-5), "padding is not read"
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    assert not together.requires_grad
