"""VMMs behind one driver contract (`base`). Knows nothing of pods, images or networks: it gets files, taps and limits."""
