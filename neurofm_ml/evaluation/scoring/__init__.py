"""One table of everything that was predicted."""
