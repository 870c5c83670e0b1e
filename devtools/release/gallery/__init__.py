"""Build the workflows and subgraph blueprints that ship with the pack."""
