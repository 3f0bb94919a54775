"""Numbers of a running server, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds

_HELP = {
    "sessions_total": "Sessions opened.",
    "resumed_total": "Sessions taken up again by another connection.",
    "refused_total": "Connections ended with an error message, by its code.",
    "origin_refused_total": "Handshakes refused for their origin.",
    "events_total": "Partials and finals told by the recogniser.",
    "sound_seconds_total": "Sound decoded.",
    "busy_seconds_total": "Time spent decoding, of all threads.",
    "sessions": "Sessions that are known, detached ones among them.",
    "detached": "Sessions that wait for their client to come back.",
    "connections": "Sockets that are open.",
    "tasks": "Tasks of the event loop.",
    "max_streams": "Sessions that are admitted at once.",
    "rtf": "Seconds of decoding per second of sound, smoothed.",
}


class Metrics:
    """Counters, and one histogram: seconds from the arrival of sound to what it made known."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lags = [0] * (len(BUCKETS) + 1)
        self._lag_seconds = 0.0

    def count(self, name: str, amount: float = 1, **label: str) -> None:
        labels = ",".join(f'{key}="{value}"' for key, value in label.items())
        self._counts[name, labels] += amount  # type: ignore[assignment]

    def lag(self, seconds: float) -> None:
        self._lags[bisect_left(BUCKETS, seconds)] += 1
        self._lag_seconds += seconds

    def render(self, gauges: dict[str, float]) -> str:
        """All numbers; `gauges` are those that are asked for now, such as `{"connections": 3}`."""
        values = {**dict(self._counts), **{(name, ""): value for name, value in gauges.items()}}
        lines = []
        for name, text in _HELP.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP streamasr_{name} {text}", f"# TYPE streamasr_{name} {kind}"]
            for (found, labels), value in sorted(values.items()):
                if found == name:
                    lines.append(f"streamasr_{name}{f'{{{labels}}}' if labels else ''} {value:g}")
        name = "streamasr_event_lag_seconds"
        lines += [
            f"# HELP {name} From the arrival of sound to the event it caused.",
            f"# TYPE {name} histogram",
        ]
        total = 0
        for bound, number in zip((*map(str, BUCKETS), "+Inf"), self._lags, strict=True):
            total += number
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        lines += [f"{name}_sum {self._lag_seconds:g}", f"{name}_count {total}"]
        return "\n".join(lines) + "\n"
