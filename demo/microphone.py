"""Listens to the microphone until Ctrl-C: python demo/microphone.py"""

from __future__ import annotations

import queue
import sys

import streamasr

try:
    import sounddevice
except ImportError:
    sys.exit("the package sounddevice is missing: pip install sounddevice")
except OSError:
    sys.exit("the system library PortAudio is missing (Debian, Ubuntu: apt install libportaudio2)")

asr = streamasr.load()
chunks: queue.Queue = queue.Queue()
try:
    rate = int(sounddevice.query_devices(kind="input")["default_samplerate"])
    microphone = sounddevice.InputStream(
        samplerate=rate, channels=1, dtype="float32", callback=lambda data, *_: chunks.put(data[:, 0].copy())
    )
except (ValueError, sounddevice.PortAudioError) as error:
    sys.exit(f"no microphone can be opened: {error}; connect one, or try demo/live.py")

stream = asr.stream(sample_rate=rate)
print("Speak. Ctrl-C ends.")
try:
    with microphone:
        while True:
            for event in stream.accept(chunks.get()):
                if isinstance(event, streamasr.Final):
                    print(f"\r\x1b[K{event.text}")
                else:  # bright, and dim what may still change; of a long line the end
                    stable, volatile = event.stable[-50:], event.volatile[-25:]
                    print(f"\r\x1b[K{stable} \x1b[2m{volatile}\x1b[0m", end="", flush=True)
except KeyboardInterrupt:
    for event in stream.finish():
        print(f"\r\x1b[K{event.text}")
