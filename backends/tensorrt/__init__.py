"""TensorRT: strongly typed ONNX, and an engine builder that runs on the device."""
