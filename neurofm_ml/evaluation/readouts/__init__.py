"""Closed-form and convex readouts, and what they are read from."""
