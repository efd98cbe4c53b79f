"""The server's end of Kubernetes' streaming sub-protocols over WebSocket: remote commands and port forwarding.

Knows neither pods nor guests: what runs behind a stream is given as a `Command` or a `Tunnel`.
"""
