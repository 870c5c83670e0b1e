"""Training: one loop for every stage (loop.py); a stage supplies networks, data and loss (stage.py)."""
