"""Tokenizers: one per modality, each StreamBatch -> TokenizedSequence; and the clock that aligns what they return."""

from neurofm_ml.tokenizers.align import align
from neurofm_ml.tokenizers.base import TOKENIZERS, Tokenizer
from neurofm_ml.tokenizers.counts import CalciumTokenizer, SpikeTokenizer
from neurofm_ml.tokenizers.events import SpikeEventTokenizer
from neurofm_ml.tokenizers.patches import EEGTokenizer, EMGTokenizer, FMRITokenizer, IntracellularTokenizer, MEGTokenizer
from neurofm_ml.tokenizers.side import (
    AudioTokenizer,
    EyeTokenizer,
    LanguageTokenizer,
    PhysioTokenizer,
    PoseTokenizer,
    TaskTokenizer,
    VideoTokenizer,
)
from neurofm_ml.tokenizers.spectra import ECoGTokenizer, IEEGTokenizer, LFPTokenizer
from neurofm_ml.tokenizers.text import HashingEncoder, SentenceEncoder, TextEncoder

__all__ = [
    "TOKENIZERS",
    "AudioTokenizer",
    "CalciumTokenizer",
    "ECoGTokenizer",
    "EEGTokenizer",
    "EMGTokenizer",
    "EyeTokenizer",
    "FMRITokenizer",
    "HashingEncoder",
    "IEEGTokenizer",
    "IntracellularTokenizer",
    "LFPTokenizer",
    "LanguageTokenizer",
    "MEGTokenizer",
    "PhysioTokenizer",
    "PoseTokenizer",
    "SentenceEncoder",
    "SpikeEventTokenizer",
    "SpikeTokenizer",
    "TaskTokenizer",
    "TextEncoder",
    "Tokenizer",
    "VideoTokenizer",
    "align",
]
