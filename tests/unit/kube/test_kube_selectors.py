"""Label and field selectors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.kube import selectors
from cuboid.lib.errors import InvalidError

LABELS = {"app": "web", "tier": "front", "n": "5"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app!=web", False),
        ("none!=web", True),
        ("app in (web, db)", True),
        ("app notin (web)", False),
        ("none notin (x)", True),
        ("app", True),
        ("!app", False),
        ("!none", True),
        ("app=web,tier=front", True),
        ("app=web , tier=back", False),
        ("n>4", True),
        ("n<5", False),
        ("app>4", False),
        ("example.com/x!=1", True),
        ("none=", False),
    ],
)
def test_a_selector_matches_as_in_kubernetes(text: str, expected: bool) -> None:
    assert selectors.matches(selectors.parse_labels(text), LABELS) is expected


@pytest.mark.parametrize(
    "text",
    ["=x", "a=b=c", "a in b", "a in (b", "a,,b", "a,", "a=b c", "a>x", "a b", "-=1", "a=" + "x" * 64, "x" * 9000],
)
def test_a_wrong_selector_is_a_bad_request(text: str) -> None:
    with pytest.raises(InvalidError):
        selectors.parse_labels(text)


@given(st.text("ab=!,() innot<>1\n", max_size=30))
def test_no_text_breaks_the_label_parser(text: str) -> None:
    try:
        selectors.matches(selectors.parse_labels(text), LABELS)
    except InvalidError:
        return


keys = st.sampled_from(["a", "b/c", "d.e"])
values = st.sampled_from(["", "x", "y1", "z-z"])


@given(
    st.lists(st.tuples(keys, st.sampled_from(["=", "!=", "in", "notin", "exists", "!"]), values), max_size=4),
    st.dictionaries(keys, values),
)
def test_a_selector_is_the_conjunction_of_its_parts(parts: list[tuple[str, str, str]], labels: dict[str, str]) -> None:
    texts = {
        "=": "{}={}", "!=": "{}!={}", "in": "{} in ({},q)", "notin": "{} notin ({})", "exists": "{}", "!": "!{}",
    }  # fmt: skip
    holds: dict[str, Callable[[str, str], bool]] = {
        "=": lambda key, value: labels.get(key) == value,
        "!=": lambda key, value: labels.get(key) != value,
        "in": lambda key, value: labels.get(key) in (value, "q"),
        "notin": lambda key, value: labels.get(key) != value,
        "exists": lambda key, value: key in labels,
        "!": lambda key, value: key not in labels,
    }
    text = ",".join(texts[kind].format(key, value) for key, kind, value in parts)
    expected = all(holds[kind](key, value) for key, kind, value in parts)
    assert selectors.matches(selectors.parse_labels(text), labels) is expected


def test_fields_that_are_not_set_are_empty_and_unknown_ones_refused() -> None:
    known = ("spec.nodeName", "metadata.name")
    unbound = selectors.parse_fields("spec.nodeName=,metadata.name!=x", known)
    assert selectors.match_fields(unbound, {"metadata.name": "y"})
    assert not selectors.match_fields(unbound, {"metadata.name": "y", "spec.nodeName": "n"})
    with pytest.raises(InvalidError, match=r"field label not supported: spec\.foo"):
        selectors.parse_fields("spec.foo=1", known)
