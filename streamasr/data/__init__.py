"""Transcribed speech: manifests (lists of utterances), text normalisation, readers of corpora."""
