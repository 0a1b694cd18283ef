"""Crop, normalise, resample: the same code for training and for prediction. Nothing here needs torch."""
