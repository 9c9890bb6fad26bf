"""Searches: how well scores without training rank architectures."""
