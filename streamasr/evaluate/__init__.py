"""Measuring recognition: error rates by utterance, runs over manifests, reports."""
