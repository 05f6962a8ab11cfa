"""Every modality from real files through shards and Collate to tokens: a short cut of the first recording of a set."""

import dataclasses
import functools
import itertools
import json
import os
from pathlib import Path

import pytest
import torch

from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.readers import READERS
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit, load_scaler
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.knowledge.cards import SplitSpec, datasets
from neurofm_ml.knowledge.files import find_recordings
from neurofm_ml.presets import NEURAL, SIDE, ScalerConfig, ShardsConfig
from neurofm_ml.tokenizers import TOKENIZERS, align
from neurofm_ml.types import Batch, StreamBatch

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")

#: Modality, set, signal (or intervals), and how many tokens a whole window has; no set of features of video is here.
CASES = [
    ("spikes", "monkey_m1_chewie", "counts", 64),
    ("spike_events", "monkey_m1_chewie", "counts", None),
    ("intracellular", "nwb_current_clamp", "voltage", 25),
    ("lfp", "stn_ecog_pyneuromodulation", "lfp", 8),
    ("calcium", "worm_swf415", "calcium", 64),
    ("eeg", "eeg_muse_n170", "eeg", 32),
    ("meg", "meg_kit_sample", "meg", 4),
    ("ecog", "stn_ecog_pyneuromodulation", "ecog", 16),
    ("ieeg", "ieeg_seizure_pt01", "ieeg", 6),
    ("fmri", "alice_listening", "bold", 32),
    ("emg", "myo_gestures", "emg", 19),
    ("eye", "eyelink_saccades", "gaze", 16),
    ("pose", "stn_ecog_pyneuromodulation", "grip", 20),
    ("physio", "alice_listening", "motion", 32),
    ("task", "nwb_current_clamp", "current", 50),
    ("task", "eeg_muse_n170", "events_intervals", None),
    ("audio", "speech_naplib", "sound", 10),
    ("language", "alice_listening", "predictors", 32),
    ("language", "alice_listening", "words_intervals", None),
    ("language", "speech_naplib", "words_intervals", None),
]


@pytest.fixture(scope="module")
def batch_of(tmp_path_factory: pytest.TempPathFactory):
    """The training windows of a set's first recording, cut to some ten windows."""

    @functools.cache
    def make(name: str) -> tuple[Batch, Vocabulary]:
        folder, card = tmp_path_factory.mktemp(name), datasets()[name]
        (recording,) = READERS[card.reader](dataclasses.replace(card, recordings=tuple(find_recordings(card)[:1])))
        gap_s = max(signal.bin_s or 0.0 for signal in card.signals.values())
        card = dataclasses.replace(card, split=SplitSpec(gap_s=gap_s), stride_s=card.window_s, expected={})
        start = max(series.span[0] for series in recording.signals.values())
        save_recording(recording.slice(start, start + 11 * card.window_s), folder / "recordings")
        (folder / "card.json").write_text(json.dumps(to_dict(card)))
        (shards := folder / "shards").mkdir()
        shard_recordings(ShardsConfig(dataset=name), folder, shards)
        scalers = []
        for modality in card.modalities:
            scalers.append(folder / modality)
            scalers[-1].mkdir()
            fit(ScalerConfig(modality=modality), [shards], scalers[-1])
        vocabulary = build_vocabulary([shards])
        collate = Collate([shards], vocabulary, load_scaler(scalers), side=True)
        batches = Loader([shards], split="train", batch_size=4, seed=0, collate=collate).epoch()
        return next(iter(batches)), vocabulary

    return make


@pytest.mark.parametrize(("tokenizer", "dataset", "signal", "n_tokens"), CASES, ids=[f"{c[0]} of {c[1]}" for c in CASES])
def test_real_tokens(tokenizer, dataset, signal, n_tokens, batch_of):
    batch, vocabulary = batch_of(dataset)
    stream: StreamBatch = {**batch.streams, **batch.side}[signal]
    modality = stream.modality
    assert (signal in batch.streams) is (modality in NEURAL)
    torch.manual_seed(0)
    out = TOKENIZERS[tokenizer](torch.from_numpy(vocabulary.channel_std(modality)), 16)(stream)
    assert (out.modality, modality in vocabulary.modalities) == (modality, True)
    assert out.tokens.isfinite().all()
    assert out.mask.any(1).sum() >= 2, "most windows have tokens"
    if n_tokens is not None:
        assert out.tokens.shape == (len(batch.rows), n_tokens, 16)
    found = out.tokens[out.mask]
    assert (found.std(0) > 1e-4).all(), "tokens differ"
    on_grid = align([out], batch.times[:, 0] - batch.dt / 2, batch.dt, batch.times.shape[1], "nearest")[0]
    assert on_grid.mask.any()


def test_every_modality_has_its_case():
    assert {case[0] for case in CASES} >= {*NEURAL, *SIDE} - {"video"}


def test_words_of_alice_are_the_words_of_the_story(batch_of):
    """Word for word, each where it was spoken: the first window begins with the eleventh volume."""
    words = batch_of("alice_listening")[0].side["words_intervals"]
    spoken = [label for own in words.labels or () for label in own]
    assert "rabbit" in {label.casefold() for label in spoken}
    per_second = words.mask.sum(1) / 128
    assert ((per_second > 1) & (per_second < 4)).all(), "a reader's pace"
    lasts = words.values[words.mask]
    assert 0.1 < lasts.median() < 0.5
    assert all(b >= a for own, mask in zip(words.times, words.mask, strict=True) for a, b in itertools.pairwise(own[mask].tolist()))


def test_spoken_words_and_phones(batch_of):
    side = batch_of("speech_naplib")[0].side
    assert {label for own in side["words_intervals"].labels or () for label in own} == {"SHOULDER", "STOMACH"}
    assert side["phones_intervals"].modality == "language"
