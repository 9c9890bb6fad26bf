"""Reads the traces that ONNX Runtime writes."""

import json
from pathlib import Path
from statistics import median

from compactor.backend import Executed
from compactor.backends.profiles import attributed

_SUFFIX = "_kernel_time"
_TRUNCATED = 0.5
"""Microseconds that whole numbers of them lose on average."""
_WARMUP = 3


def executed(path: str) -> list[Executed]:
    """The median over all runs but the first few of every node's time, in the order of execution."""
    times: dict[str, list[int]] = {}
    for event in json.loads(Path(path).read_text()):
        if event["cat"] == "Node" and event["name"].endswith(_SUFFIX):
            times.setdefault(event["name"].removesuffix(_SUFFIX), []).append(event["dur"])
    return attributed([(name, median(each[_WARMUP:]) + _TRUNCATED) for name, each in times.items()])
