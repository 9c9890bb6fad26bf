"""Passes that remove units and blocks of a Program and keep the rest of its weights."""
