"""Reads the traces that ONNX Runtime writes."""

import json
from pathlib import Path
from statistics import median

from compactor.backend import Executed
from compactor.backends.profiles import attributed

_SUFFIX = "_kernel_time"
_TRUNCATED = 0.5
"""Microseconds that whole numbers of them lose on average."""
_LEAST = 5
"""Runs that count at least."""


def executed(path: str, settled: float) -> list[Executed]:
    """The median of every node's time, in the order of execution, over the runs after the first ``settled`` seconds."""
    events = json.loads(Path(path).read_text())
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    begin = nodes[0]["ts"] + 1e6 * settled if nodes else 0.0
    times: dict[str, list[tuple[float, int]]] = {}
    for event in nodes:
        times.setdefault(event["name"].removesuffix(_SUFFIX), []).append((event["ts"], event["dur"]))
    medians = []
    for name, each in times.items():
        late = [us for ts, us in each if ts >= begin]
        medians.append((name, median(late if len(late) >= _LEAST else [us for _, us in each[-_LEAST:]]) + _TRUNCATED))
    return attributed(medians)
