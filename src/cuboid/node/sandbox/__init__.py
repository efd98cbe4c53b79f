"""The life of one pod, decided purely: `step(state, event) -> (state, instructions)`.

No clock (events carry their time), no I/O, no knowledge of who acts. A state is JSON at any moment; after an
interruption a `Recovered` event with what was found brings it back on its way.
"""
