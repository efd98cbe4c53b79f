"""Quantities are exact and canonical, as Kubernetes writes them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.kube import quantity
from cuboid.lib.errors import InvalidError


@pytest.mark.parametrize(
    ("given_", "canonical"),
    [
        ("0.5Gi", "512Mi"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("0", "0"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("100Ki", "100Ki"),
        ("0.5Ki", "512"),
        ("1.1Ki", "1126400m"),
        ("1e3", "1e3"),
        ("12e6", "12e6"),
        ("1.5e3", "1500"),
        ("1000000", "1M"),
        ("-1", "-1"),
        ("0.0000000001", "1n"),
        ("5.", "5"),
        (".5", "500m"),
        (2, "2"),
        ("9999999999999999999999", "9223372036854775807"),
    ],
)
def test_the_canonical_form_is_what_kubernetes_stores(given_: str | int, canonical: str) -> None:
    assert quantity.canonical(given_) == canonical


@pytest.mark.parametrize("text", ["", "1.2.3", "1Kb", "abc", "1 Gi", "1e", "--1", "m", "1e9999", "٣", "0x10", "1" * 99])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        quantity.parse(text)


def test_values_are_rounded_up_to_the_unit_asked_for() -> None:
    assert quantity.to_int("1.1") == 2
    assert quantity.to_millis("100u") == 1
    assert quantity.to_int("1Gi") == 2**30


@given(st.integers(-(10**15), 10**15), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "u", "n", "e3", "e-3"]))
def test_the_canonical_form_keeps_the_value_and_is_stable(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    once = quantity.canonical(text)
    assert quantity.parse(once) == quantity.parse(text)
    assert quantity.canonical(once) == once


@given(st.text(max_size=30))
def test_no_text_makes_the_parser_fail_in_another_way(text: str) -> None:
    try:
        assert isinstance(quantity.parse(text), Fraction)
    except InvalidError:
        return


@given(st.integers(0, 2**62))
def test_bytes_and_millis_survive_formatting(count: int) -> None:
    assert quantity.to_int(quantity.format_bytes(count)) == count
    assert quantity.to_millis(quantity.format_millis(count % 10**9)) == count % 10**9
