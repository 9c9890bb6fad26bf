"""Backends: one folder per runtime."""
