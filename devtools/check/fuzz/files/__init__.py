"""Malformed weight files over every reader of the core."""
