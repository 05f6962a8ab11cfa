"""Which tasks there are, as arrays: of series, of labels, of signals themselves."""
