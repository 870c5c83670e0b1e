"""Turn videos into training sets: scan, decode, cut, score, choose and encode. `..prepare` is the command."""
