"""What Kubernetes allows as a name, label, port name or path. Each check returns its complaints, none if all is well.

Source of rules and wording: k8s.io/apimachinery/pkg/util/validation.
"""

from __future__ import annotations

import ipaddress
import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_ENV = re.compile(r"[ -<>-~]+", re.ASCII)
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+", re.ASCII)
_PORT = re.compile(r"[a-z0-9-]+", re.ASCII)
_HEADER = re.compile(r"[-A-Za-z0-9]+", re.ASCII)

LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DNS_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def _length(text: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(text.encode("utf-8", "replace")) > limit else []


def dns_label(text: str) -> list[str]:
    return _length(text, 63) + ([] if _LABEL.fullmatch(text) else [LABEL_TEXT])


def dns_1035_label(text: str) -> list[str]:
    """A name that some resolvers take for a number if it begins with a digit."""
    return _length(text, 63) + ([] if _DNS_1035.fullmatch(text) else [DNS_1035_TEXT])


def dns_subdomain(text: str) -> list[str]:
    return _length(text, 253) + ([] if _SUBDOMAIN.fullmatch(text) else [SUBDOMAIN_TEXT])


def qualified_name(text: str) -> list[str]:
    """A label or annotation key, `[prefix/]name`."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return ["a qualified name " + QUALIFIED_TEXT.removeprefix("name part ")]
    problems = [f"prefix part {problem}" for problem in _prefix(prefix)] if slash else []
    if not name:
        return [*problems, "name part must be non-empty", QUALIFIED_TEXT]
    problems += [f"name part {problem}" for problem in _length(name, 63)]
    return problems + ([] if _QUALIFIED.fullmatch(name) else [QUALIFIED_TEXT])


def _prefix(prefix: str) -> list[str]:
    return dns_subdomain(prefix) if prefix else ["must be non-empty"]


def label_value(text: str) -> list[str]:
    return _length(text, 63) + ([] if not text or _QUALIFIED.fullmatch(text) else [VALUE_TEXT])


def env_name(text: str) -> list[str]:
    if _ENV.fullmatch(text):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def config_key(text: str) -> list[str]:
    problems = _length(text, 253)
    if not _CONFIG_KEY.fullmatch(text):
        problems.append(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    if text == "." or text.startswith(".."):
        problems.append("must not be '.'" if text == "." else "must not start with '..'")
    return problems


def port_name(text: str) -> list[str]:
    problems = ["must be no more than 15 characters"] if len(text) > 15 else []
    if not _PORT.fullmatch(text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", text):
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def port_number(number: int) -> list[str]:
    return [] if 1 <= number <= 65535 else ["must be between 1 and 65535, inclusive"]


def header_name(text: str) -> list[str]:
    if _HEADER.fullmatch(text):
        return []
    return [
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
        "validation is '[-A-Za-z0-9]+')"
    ]


def ip_address(text: str) -> list[str]:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def path_segment(text: str) -> list[str]:
    """A name that is only ever a part of a path."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{letter}'" for letter in "/%" if letter in text]
