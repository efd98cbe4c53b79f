"""The command line: one thin module per verb over the public API. Starts fast: heavy imports are inside functions."""
