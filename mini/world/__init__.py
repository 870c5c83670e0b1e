"""The toy world: animated Fluent Emoji, fetched, rendered, captioned and encoded as training data."""
