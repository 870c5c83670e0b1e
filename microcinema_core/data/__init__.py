"""Training data made of users' own videos: found, scored, cut and encoded into shards."""
