"""A trained model as one file to hand on, and as ONNX for other programs."""
