"""Choosing a model on held-out cases: comparison, post-processing and calibration."""
