"""Measures of the mini family on unseen motions; `python -m mini.evaluate` prints the table."""
