"""Readouts fitted in one place and scored in another."""
