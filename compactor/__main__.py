"""``python -m compactor``."""

from compactor.cli.main import entry

entry()
