"""Weight files and what else is read from disk or downloaded."""
