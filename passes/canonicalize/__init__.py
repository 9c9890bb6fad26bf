"""Exact clean-up of exported graphs: `canonicalize` and `fold_batchnorm`."""
