"""The stages that train the mini family's own image model: the VAE, the text encoder and the 2D U-Net."""
