"""Diffusion: the noise schedule, the Appearance Noise Prior, DDIM, and temporal super-resolution."""
