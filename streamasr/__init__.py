"""Streaming speech recognition: sound in chunks of any size, the words of the whole, early.

    samples -> Resampler -> LogMel -> Encoder -> Search -> Segmenter -> events

    >>> import streamasr
    >>> asr = streamasr.load()                        # doctest: +SKIP
    >>> stream = asr.stream(sample_rate=48_000)       # doctest: +SKIP
    >>> for chunk in microphone:                      # doctest: +SKIP
    ...     for event in stream.accept(chunk):        # Partial | Final
    ...         show(event)
    >>> events = stream.finish()                      # doctest: +SKIP

docs/design.md has what each arrow promises; `streamasr.errors` what may be raised.
"""

from .errors import (
    AudioError,
    ConfigError,
    ManifestError,
    MissingDependency,
    ModelError,
    SnapshotError,
    StreamASRError,
    StreamClosedError,
)
from .events import Event, Final, Partial, Transcript, Word
from .recognizer import Recognizer, load
from .segmenter import EndpointRule
from .stream import Stream

__all__ = [
    "load",
    "Recognizer",
    "Stream",
    "EndpointRule",
    "Event",
    "Partial",
    "Final",
    "Word",
    "Transcript",
    "StreamASRError",
    "AudioError",
    "ConfigError",
    "ManifestError",
    "MissingDependency",
    "ModelError",
    "SnapshotError",
    "StreamClosedError",
]
