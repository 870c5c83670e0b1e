"""Make all pictures of the docs: `python3 dev.py python -m devtools.release.pictures`."""
