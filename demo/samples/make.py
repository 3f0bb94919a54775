"""Makes the sample recordings and samples.jsonl anew: python demo/samples/make.py

Needs the programs flite (2.2) and espeak-ng (1.51); see README.md here.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from streamasr import audio
from streamasr.resample import TARGET_RATE, Resampler

FOLDER = Path(__file__).parent

# Name, speaker, sentence. Speakers are flite voices, or voices of espeak-ng with its name before them.
SAMPLES = [
    ("garden", "slt", "All the children played in the garden until it was dark."),
    ("train", "rms", "We took the early train and arrived before nine o'clock in the morning."),
    ("letter", "awb", "She wrote a long letter to her brother and told him about the house."),
    ("river", "slt", "He walked along the river for an hour, thinking about what she had said."),
    ("door", "rms", "Please close the door behind you, it's very cold outside."),
    ("books", "kal16", "There are twenty old books on the table by the window."),
    ("water", "espeak-ng:en-us", "The old man gave the horse some water and sat down under a tree."),
]


def command(speaker: str, sentence: str) -> list[str]:
    """The command that writes the sentence to speech.wav."""
    if speaker.startswith("espeak-ng:"):
        return ["espeak-ng", "-v", speaker.split(":")[1], "-s", "150", "-w", "speech.wav", sentence]
    return ["flite", "-voice", speaker, "-t", sentence, "-o", "speech.wav"]


def spoken(sentence: str) -> str:
    return "".join(c for c in sentence.lower() if c in "abcdefghijklmnopqrstuvwxyz' ")


def main() -> None:
    lines = []
    for name, speaker, sentence in SAMPLES:
        with TemporaryDirectory() as folder:
            subprocess.run(command(speaker, sentence), cwd=folder, check=True, capture_output=True)
            samples, rate = audio.read(Path(folder) / "speech.wav")
        resampler = Resampler(rate)
        state = resampler.start()
        samples = np.concatenate([resampler.advance(state, samples), resampler.finish(state)])
        samples *= 0.5 / np.abs(samples).max()  # the voices differ in loudness; half of full scale
        soundfile.write(FOLDER / f"{name}.flac", samples, TARGET_RATE, subtype="PCM_16")
        lines.append(
            {
                "id": name,
                "audio": f"{name}.flac",
                "duration": round(len(samples) / TARGET_RATE, 3),
                "text": spoken(sentence),
                "speaker": speaker,
                "made_with": shlex.join(command(speaker, sentence)),
            }
        )
        print(f"{name}.flac: {lines[-1]['duration']} s")
    (FOLDER / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
