"""Prediction: from trained networks and an image to a segmentation on the grid of the image."""
