"""Training of every network of the family by one loop; see loop.py."""
