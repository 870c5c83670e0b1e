"""One module a stage, each with `build(config) -> Stage`."""
