"""Passes: Program in, Program out. One folder per kind, one pass per file."""
