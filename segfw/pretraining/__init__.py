"""Weights that are learnt of images alone, before training: masked reconstruction, its guards, and whether it pays."""
