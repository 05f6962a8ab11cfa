"""Release: ONNX with parity, the model card, the bundle with its manifest."""
