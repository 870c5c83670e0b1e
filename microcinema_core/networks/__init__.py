"""The networks: the 3D U-Net with its layers over time, AppearNet, and the small VAE and text encoder."""
