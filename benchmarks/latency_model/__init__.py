"""Calibration of the latency model against published latencies."""
