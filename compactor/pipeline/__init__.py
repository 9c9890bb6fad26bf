"""Pipelines: pass contract, text, planning, manager, store, and the build that drives them."""
