"""Model selection on held-out cases: the choice of models, post-processing and calibration."""
