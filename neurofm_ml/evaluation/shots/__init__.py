"""Readouts from few labels."""
