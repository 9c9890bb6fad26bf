"""`params`, `macs`, `latency`: what a candidate costs as its score, the baselines of every other proxy."""

from compactor.passes.search.proxies.subject import Proxy

PARAMS = Proxy("params", lambda subject: float(subject.costs.parameters), observes=False)
"""Among candidates that meet a budget, more weights are better."""

MACS = Proxy("macs", lambda subject: float(subject.costs.macs), observes=False)
"""Among candidates that meet a budget, more arithmetic is better."""

LATENCY = Proxy("latency", lambda subject: -subject.costs.latency, observes=False)
"""Faster is better, whatever it costs in accuracy: for combinations."""
