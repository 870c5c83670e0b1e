"""Measures of the mini family on unseen motions; `python -m microcinema_core.evaluate` prints the table."""
