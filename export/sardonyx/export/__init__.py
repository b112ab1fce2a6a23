"""From a trained model to an artifact. numpy, onnx and onnx-ir; no torch."""
