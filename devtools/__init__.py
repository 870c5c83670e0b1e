"""Helpers of dev.py and of the host tests: environment, ComfyUI, server. No part of the node pack."""
