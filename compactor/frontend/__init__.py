"""Teachers in: any accepted form to a Program."""

from compactor.frontend.exporting import export
from compactor.frontend.loading import load

__all__ = ["export", "load"]
