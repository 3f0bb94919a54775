"""Sound as it happens: the microphone."""
