"""What every part stands on: processes, async, errors, settings, clock, log. Imports nothing else of Cuboid."""
