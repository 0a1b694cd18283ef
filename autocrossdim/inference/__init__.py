"""From a trained network and an image to a segmentation on the image's own grid."""
