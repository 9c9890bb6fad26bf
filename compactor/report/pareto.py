"""The archive of a search as a drawing: score against latency."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 400, 64, 48, 32
_TICKS = 5


def svg(summary: Mapping[str, Any]) -> str:
    """An SVG of the candidates that none beats; those on the front of score and latency alone are joined by a line."""
    rows: Sequence[Mapping[str, Any]] = summary["archive"]
    times, scores = [r["latency_ms"] for r in rows], [r["score"] for r in rows]
    x, y = _Scale(times, _LEFT, _WIDTH - 16), _Scale(scores, _HEIGHT - _BOTTOM, _TOP)
    title = f"{summary['target']}: {summary['candidates']} candidates scored by {summary['score']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18">{escape(title)}</text>',
        *_axes(times, scores, x, y),
        '<polyline fill="none" stroke="#1f77b4" points="{}"/>'.format(
            " ".join(f"{x(t):.1f},{y(s):.1f}" for t, s in _steps(zip(times, scores, strict=True)))
        ),
        *(_dot(r, x(r["latency_ms"]), y(r["score"]), chosen=r["chosen"]) for r in rows),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """Maps the range of values onto pixels."""

    def __init__(self, values: Sequence[float], low: float, high: float) -> None:
        self.least, self.most = min(values, default=0.0), max(values, default=1.0)
        self._low, self._high = low, high

    def __call__(self, value: float) -> float:
        share = (value - self.least) / ((self.most - self.least) or 1.0)
        return self._low + share * (self._high - self._low)

    def ticks(self) -> Iterator[float]:
        """Values along the axis."""
        yield from (self.least + i / (_TICKS - 1) * (self.most - self.least) for i in range(_TICKS))


def _axes(times: Sequence[float], scores: Sequence[float], x: _Scale, y: _Scale) -> Iterator[str]:
    yield f'<path d="M{_LEFT},{_TOP} V{_HEIGHT - _BOTTOM} H{_WIDTH - 16}" fill="none" stroke="#888"/>'
    for value in x.ticks():
        yield f'<text x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:.3g}</text>'
    for value in y.ticks():
        yield f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
    yield f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">latency, ms (predicted)</text>'
    yield f'<text transform="translate(14,{_HEIGHT / 2}) rotate(-90)" text-anchor="middle">score</text>'


def _steps(points: Any) -> Iterator[tuple[float, float]]:
    """The points that no faster one reaches in score, by latency."""
    best = float("-inf")
    for time, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if score > best:
            best = score
            yield time, score


def _dot(row: Mapping[str, Any], x: float, y: float, *, chosen: bool) -> str:
    text = f"{row['latency_ms']} ms, {row['macs']:,} MACs, {row['bytes']:,} bytes"
    colour, size = ("#d62728", 5) if chosen else ("#1f77b4", 3)
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}"><title>{escape(text)}</title></circle>'
