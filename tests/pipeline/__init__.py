"""Tests of the pipeline, its store and the build driver."""
