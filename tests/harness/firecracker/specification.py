"""Firecracker's API specification (Swagger 2), read from beside the checkout: is this request or answer one of its?

Stricter than the letter in one way, as Firecracker itself is: a field that a definition does not name is refused.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

FILE = Path(__file__).resolve().parents[4] / "shared/specs/firecracker-api.yaml"


class Specification:
    def __init__(self, content: dict[str, Any]) -> None:
        self._paths: dict[str, Any] = content["paths"]
        self._definitions: dict[str, Any] = {
            name: _closed(schema) for name, schema in content["definitions"].items()
        }  # fmt: skip
        self.version = str(content["info"]["version"])

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """The operation that a request names, or None."""
        for template, operations in self._paths.items():
            pattern = re.sub(r"\{[a-z_]+\}", "[A-Za-z0-9_]+", template)
            if re.fullmatch(pattern, path):
                found: dict[str, Any] | None = operations.get(method.lower())
                return found
        return None

    def request_errors(self, method: str, path: str, body: Any) -> list[str]:
        """What is wrong with a request; the body is None where there is none."""
        operation = self.operation(method, path)
        if operation is None:
            return [f"there is no {method} {path}"]
        parameter = next((row for row in operation.get("parameters", ()) if row["in"] == "body"), None)
        if parameter is None:
            return [] if body is None else [f"{method} {path} takes no body"]
        if body is None:
            return [f"{method} {path} needs a body"] if parameter.get("required") else []
        return self._errors(parameter["schema"], body)

    def answer_errors(self, method: str, path: str, status: int, body: Any) -> list[str]:
        operation = self.operation(method, path)
        if operation is None:
            return [f"there is no {method} {path}"]
        responses = operation["responses"]
        response = responses.get(status, responses["default"])
        if "schema" not in response:
            return [] if body is None else [f"an answer {status} has no body"]
        return self._errors(response["schema"], body)

    def _errors(self, schema: dict[str, Any], value: Any) -> list[str]:
        whole = {**schema, "definitions": self._definitions}
        return [error.message for error in jsonschema.Draft4Validator(whole).iter_errors(value)]


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    if "properties" not in schema or "additionalProperties" in schema:
        return schema
    return {**schema, "additionalProperties": False}


@cache
def specification() -> Specification:
    return Specification(yaml.load(FILE.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
