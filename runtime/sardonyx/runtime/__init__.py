"""Running artifacts: numpy and onnxruntime, no torch."""
