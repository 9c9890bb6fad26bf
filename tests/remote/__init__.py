"""Devices over SSH, against a real server on this machine."""
