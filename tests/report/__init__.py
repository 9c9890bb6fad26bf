"""Tests of artifacts, gate and summary."""
