"""One program per claim. `make bench` runs all and writes `bench/results/<name>.json` and `bench/results/table.md`.

Machines are shared and noisy: every figure is a median with its spread, a ratio to a peer or a floor is measured in the
same run, turn by turn, and each result holds the machine's description.
"""
