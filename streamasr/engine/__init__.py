"""The arithmetic under the encoder; one file an engine, the same four functions in each."""
