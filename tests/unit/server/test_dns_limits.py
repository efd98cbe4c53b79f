"""Questions under way: of one asker, of one tenant, of all."""

from __future__ import annotations

from cuboid.server.dns.serve import OPEN, OPEN_EACH, OPEN_TENANT, Limits


def test_a_tenants_pods_together_leave_room_for_the_questions_of_others() -> None:
    """Each of sixteen pods had 64 questions open that nobody answers: nobody else's were taken."""
    limits = Limits(lambda address: "acme" if address.startswith("10.0.0.") else "")
    taken = [limits.take(f"10.0.0.{number % 16}") for number in range(OPEN)]
    assert sum(places is not None for places in taken) == OPEN_TENANT
    assert limits.take("10.0.1.1") is not None, "somebody else's"


def test_what_has_ended_is_free_again() -> None:
    limits = Limits(lambda address: "acme" if address.startswith("10.") else "")
    taken = [places for number in range(OPEN_TENANT) if (places := limits.take(f"10.0.0.{number % 8}")) is not None]
    assert len(taken) == OPEN_TENANT and limits.take("10.0.9.9") is None
    for places in taken:
        limits.give(places)
    assert limits.take("10.0.9.9") is not None


def test_one_asker_has_no_more_than_its_part() -> None:
    limits = Limits(lambda address: "")
    assert sum(limits.take("10.0.0.1") is not None for _ in range(OPEN)) == OPEN_EACH
