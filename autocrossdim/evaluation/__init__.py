"""Metrics of single cases, and their means and confidence intervals over many."""
