"""The figures the README quotes, each one command; results are kept as JSON in ``benchmarks/results``."""
