"""Readers of corpora as their makers ship them: one file per corpus, folder -> list of utterances."""
