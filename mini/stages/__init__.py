"""Stages that train the mini models' own image model: VAE, text encoder and 2D U-Net."""
