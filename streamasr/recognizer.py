"""Recognizer: a model, ready to open streams and to transcribe whole recordings."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from . import audio, modelfile, snapshot
from .encoder import Encoder
from .errors import AudioError, ConfigError, ModelError, SnapshotError
from .events import Event, Final, Transcript
from .features import LogMel
from .resample import whole_rate
from .search import lexicon, lm, lstm_lm, pronounce
from .search.beam import BeamSearch
from .search.confidence import RAW
from .search.greedy import GreedySearch
from .search.hotwords import Phrase
from .search.phrases import PhraseSearch
from .search.rescoring import Rescorer
from .segmenter import DEFAULT_RULES, EndpointRule
from .stream import AT_ENDPOINT, Settings, Stream, accept_batch

# Files are decoded piece by piece: a long one need not be in memory.
_BLOCK_SECONDS = 10


def load(name_or_path: str | os.PathLike[str] = "en") -> Recognizer:
    """Name of a packaged model, or path of a model directory or zip -> Recognizer.

    Raises ModelError.
    """
    return Recognizer(modelfile.read(modelfile.find(name_or_path)))


class Recognizer:
    """A model, ready to use. Never changes; threads may share it."""

    def __init__(self, model: modelfile.Model) -> None:
        description = model.description
        self.model = model
        self._features = LogMel(
            description.features, model.tensors["features.mean"], model.tensors["features.std"]
        )
        bands = description.features.mel_bands
        self._encoder = Encoder(description.encoder, bands, model.tensors, model.numbers)
        self._phone_encoder: Encoder | None = None
        if description.phones:
            weight, bias = (model.tensors[f"phone_output.{name}"] for name in ("weight", "bias"))
            self._phone_encoder = self._encoder.with_head(weight, bias)
        self._greedy = GreedySearch(description.vocabulary, description.calibration.greedy or RAW)
        self._beams: dict[bool, BeamSearch] = {}  # with and without the language model, opened when needed
        self._rescorer: Rescorer | None = None  # the same
        self._opening = threading.Lock()

    @property
    def info(self) -> dict[str, Any]:
        """What the model is, JSON-able.

        Latencies are sums of waits on an infinitely fast machine, for sound at 16 kHz; other rates
        add `Resampler.look_ahead` source samples.
        """
        description = self.model.description
        features, encoder = description.features, description.encoder
        hop = features.hop_samples / features.sample_rate
        step_seconds = encoder.frames_per_step * features.hop_samples / features.sample_rate
        parts = {
            "window": features.window_samples / features.sample_rate,
            "subsampling": (encoder.frames_per_step - 1) * hop,
            "look_ahead": encoder.look_ahead * step_seconds,
        }
        return {
            "name": description.name,
            "language": description.language,
            "licence": description.licence,
            "description": description.description,
            "fingerprint": self.model.fingerprint,
            "parameters": self.model.parameters,
            "size_bytes": self.model.size_bytes,
            "sample_rate": features.sample_rate,
            "step_seconds": step_seconds,
            "latency_seconds": {**parts, "total": sum(parts.values())},
            "vocabulary": {
                "kind": description.vocabulary.kind,
                "tokens": list(description.vocabulary.tokens),
            },
            "encoder": {**vars(encoder)},
            "searches": ["greedy", "beam"],
            "search": self.default_search,
            "lexicon": self._file("lexicon") is not None,
            "language_model": self._file("lm") is not None,
            "rescoring": self._file("lstm_lm") is not None,
        }

    @property
    def default_search(self) -> str:
        """ "beam" where the model has a lexicon to search in, else "greedy"."""
        return "beam" if self._file("lexicon") else "greedy"

    def stream(
        self,
        sample_rate: int = 16_000,
        *,
        search: str | None = None,
        endpointing: Sequence[EndpointRule] | bool | None = None,
        hotwords: Iterable[Phrase] | None = None,
        language_model: bool = True,
        at_endpoint: str = AT_ENDPOINT[0],
        phrases: Iterable[str] | None = None,
        rescore: bool | None = None,
    ) -> Stream:
        """Opens a stream of mono sound at `sample_rate` Hz.

        `search`: "greedy" or "beam"; None for beam if the model has a lexicon. `endpointing`: None or True
        for the default rules, False for none (one segment, as long as the stream), or rules of your own.
        `hotwords`: phrases, or (phrase, boost), to listen for; they need search "beam".
        `language_model`: False leaves the model's out. `at_endpoint`: what becomes of the acoustic memory
        there: "carry" goes on, "reset" begins anew, "overlap" begins anew with the last two seconds heard
        once more (docs/design.md, Endpoints). `phrases`: every segment is one of these, or several in a row,
        or none of them and not told; with search "beam", without hotwords. `rescore`: whether an LSTM
        language model has a say in finals; None for yes if the model brings one and searches by beam with a
        language model. Raises AudioError for the rate, ModelError for a lexicon or language model that is
        damaged or does not fit, MissingDependency where numba is not, ConfigError for the rest.
        """
        rate = whole_rate(sample_rate)
        name = search or ("beam" if phrases is not None else self.default_search)
        if name not in ("greedy", "beam"):
            raise ConfigError(f'search {search!r} is unknown; there are "greedy" and "beam"')
        rules = _rules(endpointing)
        if at_endpoint not in AT_ENDPOINT:
            raise ConfigError(f"at_endpoint {at_endpoint!r} is unknown; there are {', '.join(AT_ENDPOINT)}")
        for option, value in (("language_model", language_model), ("rescore", rescore)):
            if value not in (None, True, False) or (value is None and option == "language_model"):
                raise ConfigError(f"{option} {value!r}: must be True or False")
        if name == "greedy":
            if phrases is not None:
                raise ConfigError(
                    'search "greedy" cannot keep to phrases; leave them out, or take search="beam"'
                )
            if hotwords:
                raise ConfigError(
                    'search "greedy" cannot use hotwords; leave them out, or take search="beam"'
                )
            if rescore:
                raise ConfigError('search "greedy" has one text to choose from; rescore needs "beam"')
            settings = Settings(rate, name, rules, at_endpoint=at_endpoint)
            return Stream(self.model, self._features, self._encoder, self._greedy, settings)
        settings = Settings(rate, name, rules, language_model, at_endpoint=at_endpoint)
        if phrases is not None:
            if hotwords:
                raise ConfigError("hotwords: a stream that keeps to phrases has none; leave one of them out")
            if rescore:
                raise ConfigError(
                    "rescore: a stream that keeps to phrases needs no language model; leave it out"
                )
            beam: BeamSearch = PhraseSearch(self._beam(False), phrases)
            settings = replace(settings, phrases=tuple(text for text, _ in beam.hotwords.phrases))
        else:
            beam = self._beam(language_model)
            if hotwords:
                beam = beam.with_phrases(hotwords)
            settings = replace(settings, hotwords=beam.hotwords.phrases)
            if rescore is None:
                rescore = language_model and self._file("lstm_lm") is not None
            if rescore:
                beam = beam.with_rescorer(self._open_rescorer())
                settings = replace(settings, rescore=True)
        encoder = self._encoder
        if self._phone_encoder and beam.vocabulary is self.model.description.phones:
            encoder = self._phone_encoder
        return Stream(self.model, self._features, encoder, beam, settings)

    def _file(self, name: str) -> Path | None:
        """Optional file of the model directory, None where there is none."""
        folder = self.model.folder
        path = folder / f"{name}.safetensors" if folder else None
        return path if path and path.exists() else None

    def _beam(self, language_model: bool) -> BeamSearch:
        """The beam search, opened once: streams share its lexicon and language model."""
        with self._opening:
            if language_model not in self._beams:
                description = self.model.description
                words, ngrams = self._file("lexicon"), self._file("lm")
                if ngrams and not words and language_model:
                    raise ModelError(
                        f"{ngrams}: needs a lexicon beside it, made by `python -m streamasr.data.lexicon`; "
                        "or leave the language model out"
                    )
                found = lexicon.read(words) if words else None
                model = lm.read(ngrams) if ngrams and found and language_model else None
                vocabulary, prior = description.vocabulary, None
                if description.phones and found:  # only a lexicon knows what words phones are
                    vocabulary = description.phones
                    prior = self.model.tensors["phone_output.prior"]
                guesses = self._file("g2p") if vocabulary.kind == "phones" else None
                pronouncer = pronounce.read(guesses) if guesses else None
                measured = description.calibration.beam if model else description.calibration.lexicon
                try:
                    self._beams[language_model] = BeamSearch(
                        vocabulary, description.search, found, model, prior, (), pronouncer, measured or RAW
                    )
                except ConfigError as error:  # parts that do not fit each other: the model's fault
                    raise ModelError(f"{self.model.folder}: {error}") from None
            return self._beams[language_model]

    def _open_rescorer(self) -> Rescorer:
        """Opened once, like the search."""
        with self._opening:
            if self._rescorer is None:
                path = self._file("lstm_lm")
                if path is None:
                    raise ConfigError(
                        f"rescore: model {self.model.description.name!r} has no LSTM language model "
                        "(lstm_lm.safetensors and lstm_lm.json; `streamasr train-lm` makes them)"
                    )
                rescorer = Rescorer(lstm_lm.read(path.parent), self.model.description.search.rescore_weight)
                words = next((b.lexicon.words for b in self._beams.values() if b.lexicon), ())
                try:
                    rescorer.check(words)
                except ConfigError as error:
                    raise ModelError(f"{path.parent}: {error}") from None
                self._rescorer = rescorer
            return self._rescorer

    def transcribe(
        self,
        source: str | os.PathLike[str] | ArrayLike,
        sample_rate: int | None = None,
        *,
        search: str | None = None,
        endpointing: Sequence[EndpointRule] | bool | None = None,
        hotwords: Iterable[Phrase] | None = None,
        language_model: bool = True,
        at_endpoint: str = AT_ENDPOINT[0],
        phrases: Iterable[str] | None = None,
        rescore: bool | None = None,
    ) -> Transcript:
        """Path of a recording, or samples [N] with their `sample_rate` -> Transcript.

        The same as a stream that is fed the whole and finished. Raises AudioError when the recording
        or the array cannot be used or holds no samples or the rate is missing, ConfigError as `stream` does.
        """
        pieces: Iterator[tuple[ArrayLike, int]]
        if isinstance(source, str | os.PathLike):
            if sample_rate is not None:
                raise AudioError(f"{os.fspath(source)}: a file brings its own sample rate; leave it out")
            pieces = audio.blocks(source, _BLOCK_SECONDS)
        elif sample_rate is None:
            raise AudioError("samples without their rate; say transcribe(samples, sample_rate=...)")
        else:
            pieces = iter([(source, sample_rate)])
        stream = None
        events: list[Event] = []
        for samples, rate in pieces:
            if stream is None:
                stream = self.stream(
                    rate,
                    search=search,
                    endpointing=endpointing,
                    hotwords=hotwords,
                    language_model=language_model,
                    at_endpoint=at_endpoint,
                    phrases=phrases,
                    rescore=rescore,
                )
            events += stream.accept(samples)
        assert stream is not None, "audio.blocks yields at least one piece"
        if stream.time == 0:
            name = os.fspath(source) if isinstance(source, str | os.PathLike) else "samples"
            raise AudioError(f"{name}: holds no samples; was it cut off, or the recording never started?")
        events += stream.finish()
        return Transcript.of([event for event in events if isinstance(event, Final)], stream.time)

    def resume(self, data: bytes) -> Stream:
        """Bytes from `Stream.snapshot` -> a stream that goes on from there.

        Raises SnapshotError when they are damaged, or of another model or version.
        """
        settings, packed = snapshot.read(data, self.model.fingerprint)
        try:
            rules = [EndpointRule(*values) for values in settings["rules"]]
            stream = self.stream(
                settings["sample_rate"],
                search=settings["search"],
                endpointing=rules,
                hotwords=[(phrase, boost) for phrase, boost in settings["hotwords"]],
                language_model=settings["language_model"],
                at_endpoint=settings["at_endpoint"],
                phrases=settings["phrases"] or None,
                rescore=settings["rescore"],
            )
        except (AudioError, ConfigError, KeyError, TypeError) as error:
            raise SnapshotError(f"the snapshot's settings cannot be used: {error!r}") from None
        stream._restore(packed)
        return stream

    def accept_batch(self, streams: Sequence[Stream], chunks: Sequence[ArrayLike]) -> list[list[Event]]:
        """One chunk for each of several streams -> the events of each, as `accept` would give them.

        All is checked before any stream is advanced. Raises as `Stream.accept` does, and ConfigError
        when a stream is named twice or the numbers differ.
        """
        if len(streams) != len(chunks):
            raise ConfigError(f"{len(streams)} streams but {len(chunks)} chunks")
        if len({id(stream) for stream in streams}) != len(streams):
            raise ConfigError("a stream occurs twice in one batch; join its chunks")
        return accept_batch(streams, chunks)


def _rules(endpointing: Sequence[EndpointRule] | bool | None) -> tuple[EndpointRule, ...]:
    if endpointing is None or endpointing is True:
        return DEFAULT_RULES
    if endpointing is False:
        return ()
    if not isinstance(endpointing, Sequence) or not all(isinstance(r, EndpointRule) for r in endpointing):
        raise ConfigError(f"endpointing: None, False or a list of EndpointRule, not {endpointing!r}")
    return tuple(endpointing)
