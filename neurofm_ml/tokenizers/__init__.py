"""Tokenizers: one per modality, each StreamBatch -> TokenizedSequence."""

from neurofm_ml.tokenizers.base import TOKENIZERS, Tokenizer
from neurofm_ml.tokenizers.counts import CalciumTokenizer, SpikeTokenizer
from neurofm_ml.tokenizers.patches import EEGTokenizer, FMRITokenizer

__all__ = ["TOKENIZERS", "CalciumTokenizer", "EEGTokenizer", "FMRITokenizer", "SpikeTokenizer", "Tokenizer"]
