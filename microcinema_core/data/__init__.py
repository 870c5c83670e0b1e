"""Training data from a user's own videos: find, score, cut and encode them into shards."""
