"""How `kubectl get` prints the kinds of each API group."""
