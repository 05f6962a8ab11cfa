"""Activation coordinates of published studies: read a corpus or a file, write one table of peaks.

Coordinates stay as published, with the space they are in; `talairach_to_mni` brings Talairach peaks to MNI where that is wanted.
NiMARE itself, which takes seconds to import, is not needed: its files are read where they lie.
"""

from neurofm_ml.data.foci.read import read_corpus, read_foci
from neurofm_ml.data.foci.space import talairach_to_mni

__all__ = ["read_corpus", "read_foci", "talairach_to_mni"]
