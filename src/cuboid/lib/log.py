"""Logging: one line per event on stderr, `key=value` pairs, no secrets. JSON lines with CUBOID_LOG=json."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}"
        error = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        if self._json:
            row = {
                "time": stamp,
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
            }
            return json.dumps({**row, **fields, **({"error": error} if error else {})}, default=str)
        pairs = "".join(f" {key}={_quote(value)}" for key, value in fields.items())
        return (
            f"{stamp} {record.levelname[0]} {record.name.removeprefix('cuboid.')}: {record.getMessage()}{pairs}{error}"
        )


def _quote(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "\n\\=') or not text.isprintable() else text


class Log:
    """A logger whose keyword arguments become fields: `log.info("pod bound", pod=name)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: object) -> None:
        self._logger.debug(message, extra={"fields": fields})

    def info(self, message: str, **fields: object) -> None:
        self._logger.info(message, extra={"fields": fields})

    def warning(self, message: str, **fields: object) -> None:
        self._logger.warning(message, extra={"fields": fields})

    def error(self, message: str, **fields: object) -> None:
        self._logger.error(message, extra={"fields": fields})

    def exception(self, message: str, **fields: object) -> None:
        """Logs the exception that is being handled, with its traceback."""
        self._logger.exception(message, extra={"fields": fields})


def get_log(name: str) -> Log:
    return Log(name)


def set_up(level: str = "info") -> None:
    """Set up the root logger of a daemon or command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(os.environ.get("CUBOID_LOG") == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "websockets", "uvicorn.access", "qemu.qmp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
