"""Targets: device profiles, the latency model and measurement."""
