"""The workflows and subgraph blueprints that ship with the pack: built, brought up to date, and turned into scripts."""
