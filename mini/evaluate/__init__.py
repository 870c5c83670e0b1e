"""Evaluation of the mini models on unseen motions; `python -m mini.evaluate` prints the table."""
