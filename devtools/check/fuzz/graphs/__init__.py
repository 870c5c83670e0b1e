"""Graphs with faults over every input of every node of the pack, in the real ComfyUI."""
