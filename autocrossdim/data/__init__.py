"""Raw datasets: images, labels, splits, their integrity; and the store of preprocessed cases."""
