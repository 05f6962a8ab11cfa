"""Tables: what is not a recording but rows of subjects, scans, studies or regions. A card's files are joined into one Table."""

from neurofm_ml.data.tables.join import load_table

__all__ = ["load_table"]
