"""ONNX and ONNX Runtime; the ONNX writer is shared with the runtimes that read it."""
