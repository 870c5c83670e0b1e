"""Make every picture of the docs from the shipped weights: `python3 dev.py python -m devtools.release.pictures`."""
