"""Metrics as `evaluate` modules of this repository: `evaluate.load` would fetch code from a hub."""
