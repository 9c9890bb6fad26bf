"""Data for building and judging students: from files, from a callable, or made up."""
