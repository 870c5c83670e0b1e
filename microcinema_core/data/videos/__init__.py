"""A user's videos become training sets: scan, decode, cut, score, choose, encode. `..prepare` is the command."""
