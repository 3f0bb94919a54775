"""The command line: parse, call, print, exit code; one thin module per command."""
