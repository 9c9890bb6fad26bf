"""Benchmarks of distillation."""
