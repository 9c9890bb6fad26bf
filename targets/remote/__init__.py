"""Devices that are elsewhere, over SSH: what runs here, and what is sent there."""
