"""Run ComfyUI with this pack: the environment, the host, the server, and the demo."""
