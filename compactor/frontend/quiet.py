"""Keeps third-party noise off the terminal while a model is imported, read or exported."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# torchao lists compiled kernels it does not have; pytree lists enums of torchao; transformers reports its loading.
_NOISY = (
    "torchao",
    "torchao.kernel.intmm",
    "torch.utils._pytree",
    "torch.export",
    "torch.fx",
    "transformers",
    "optimum",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Errors of these loggers still show; warnings, also Python's, do not. Settings are restored on exit."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
