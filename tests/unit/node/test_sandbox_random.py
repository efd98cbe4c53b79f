"""Whatever happens in whatever order: no state contradicts itself, and every pod can be ended without a trace."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as some

from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox.plan import plan
from tests.harness.node import World, make_pod

SIDE = {"name": "side", "image": "s:1", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}
APP = {
    "name": "app", "image": "a:1", "livenessProbe": {"tcpSocket": {"port": 1}},
    "lifecycle": {"postStart": {"exec": {"command": ["x"]}}, "preStop": {"exec": {"command": ["x"]}}},
}  # fmt: skip
INIT = {"name": "init", "image": "i:1"}
NAMES = ("init", "side", "app")
ACTIONS = ("act", "act", "act", "settle", "interrupt", "exit", "die", "probe", "wait", "stop", "start", "restart",
           "delete", "reboot", "shuffle", "stale", "fail", "pause", "pause", "resume", "resize")  # fmt: skip
CHANGES: dict[str, dict[str, str]] = {
    "stop": {"state": "stopped"}, "start": {}, "pause": {"state": "paused"}, "resume": {},
    "restart": {"restartedAt": ""},
}  # fmt: skip


def _pod(policy: str, cpu: str = "100m", **annotations: str) -> object:
    resize = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}] if policy == "Always" else []
    return make_pod(
        {**APP, "resources": {"requests": {"cpu": cpu}}, "resizePolicy": resize},
        inits=(INIT, SIDE),
        restartPolicy=policy,
        annotations={f"cuboid.dev/{k}": v for k, v in annotations.items()},
    )


def _change(world: World, action: str, number: int, policy: str) -> None:
    if action == "resize":
        asked, refusal = _pod(policy, cpu=f"{100 + number}m"), ("Deferred", "too large") if number % 3 == 0 else None
    else:
        extra = {key: value or str(number) for key, value in CHANGES[action].items()}
        asked, refusal = _pod(policy, **extra), None
    world.send(ev.Updated(at=world.now, plan=plan(asked), refusal=refusal))  # type: ignore[arg-type]


def _happen(world: World, action: str, number: int, policy: str) -> None:
    name = NAMES[number % 3]
    if action == "act":
        world.act()
    elif action in ("settle", "interrupt", "reboot"):
        getattr(world, action)()
    elif action == "exit" and name in world.processes and not world.frozen:
        world._end(name, number % 2)
    elif action == "die" and world.vm is not None:
        attempt, world.vm, world.set_up, world.processes, world.frozen = world.vm, None, False, {}, False
        world.queue.append(ev.VmEnded(at=world.now, attempt=attempt, cause="VMMDied"))
    elif action == "probe" and not world.frozen:
        check, run = list(ev.Check)[number % 3], world.run(name)
        world.queue.append(
            ev.ProbeChanged(at=world.now, name=name, attempt=run.attempt, check=check, ok=number % 2 == 0)
        )
    elif action == "wait":
        world.advance(float(number))
    elif action in CHANGES or action == "resize":
        _change(world, action, number, policy)
    elif action == "delete" and number > 35:
        world.send(ev.Updated(at=world.now, plan=plan(world.pod), deleted_grace=float(number % 5)))
    elif action == "shuffle":
        world.shuffled(number)
    elif action == "stale":
        world.queue.append(ev.Exited(at=world.now, name=name, attempt=world.run(name).attempt - 1, code=1))
        world.queue.append(
            ev.Started(at=world.now, name=name, attempt=world.run(name).attempt - 1, started_at=world.now)
        )
    elif action == "fail":
        attempt = world.state.machine.attempt + 1
        world.failures["CreateVm"] = ev.VmFailed(at=world.now, attempt=attempt, reason="Timeout", message="slow")


@settings(max_examples=150, deadline=None)
@given(
    some.sampled_from(["Always", "OnFailure", "Never"]),
    some.lists(some.tuples(some.sampled_from(ACTIONS), some.integers(0, 40)), max_size=60),
)
def test_any_order_of_events_keeps_the_state_sound_and_can_be_ended(
    policy: str, actions: list[tuple[str, int]]
) -> None:
    world = World(_pod(policy))  # type: ignore[arg-type]
    world.send(ev.Admitted(at=world.now))
    for action, number in actions:
        if not world.forgotten:
            _happen(world, action, number, policy)
    world.failures.clear()
    if not world.forgotten:
        world.settle().delete(grace=1.0).advance(60)
        world.interrupt().advance(60)
    assert world.forgotten and world.nothing_left() and not world.in_api
