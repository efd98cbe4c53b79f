"""VMMs behind one driver contract (`base`). Knows no pods, images or networks: it gets files, taps and limits."""
