"""Tests of the benchmark commands, on tiny data."""
