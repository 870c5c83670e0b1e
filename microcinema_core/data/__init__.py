"""The mini world: animated Fluent Emoji, fetched, prepared, rendered and encoded as training data."""
