"""Synthetic training images with diffusion models, matched to real data and measured on it."""

__version__ = "0.1.0"
