"""The mini world: animated Fluent Emoji, fetched, rendered, captioned and encoded as training data."""
