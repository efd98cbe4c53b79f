"""May they: what a request wants, and who allows it."""
