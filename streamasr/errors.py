"""Every error that streamasr raises on purpose.

    StreamASRError
    |-- AudioError          a recording or an array of samples cannot be used
    |-- ModelError          a model directory or checkpoint cannot be used
    |-- ManifestError       a manifest (list of utterances) has problems; all are listed
    |-- ConfigError         a configuration value, key or option is wrong
    |-- SnapshotError       a snapshot is damaged, or of another model or version
    |-- StreamClosedError   a finished stream was used again
    |-- ServerError         a server refuses, or cannot be reached
    `-- MissingDependency   an optional package or system library is needed here

A message says what was wrong, with which file or value, and what to do about it.
"""

from __future__ import annotations


class StreamASRError(Exception):
    """Base of all errors above."""


class AudioError(StreamASRError):
    """A recording or an array of samples cannot be used."""


class ModelError(StreamASRError):
    """A model directory or a training checkpoint cannot be used."""


class ManifestError(StreamASRError):
    """A manifest has problems; the message lists all of them, one a line."""


class ConfigError(StreamASRError):
    """A configuration value, key or option is wrong."""


class SnapshotError(StreamASRError):
    """A snapshot is damaged, or was taken from another model or version."""


class StreamClosedError(StreamASRError):
    """A stream was used after `finish()`; call `reset()` or open a new one."""


class ServerError(StreamASRError):
    """A streamasr server refuses a session, ends it early, or cannot be reached."""


class MissingDependency(StreamASRError):
    """An optional Python package or system library is needed for this."""
