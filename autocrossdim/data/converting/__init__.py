"""Published and common layouts of annotated scans, and their conversion to raw datasets."""
