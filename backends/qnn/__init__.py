"""Qualcomm's Hexagon: ONNX that its compiler takes whole, compiled offline, checked on the emulator."""
