"""How good a segmentation is: metrics of a case, summaries over cases, the choice between models."""
