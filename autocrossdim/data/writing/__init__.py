"""What prediction writes: segmentations in one of several formats, their volumes, and names and colours of labels."""
