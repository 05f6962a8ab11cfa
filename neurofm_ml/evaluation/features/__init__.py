"""What frozen models make of windows, and what is read from it."""
