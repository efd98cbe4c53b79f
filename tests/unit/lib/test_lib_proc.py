"""The one door for processes: what goes in and comes out, and that nothing of a process is left whatever happens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from cuboid.lib import proc
from cuboid.lib.errors import DeadlineError, ProcessError, UnsupportedError

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def gone(pid: int) -> bool:
    return proc.start_time(pid) is None and not Path(f"/proc/{pid}").exists()


async def test_output_errors_input_and_code() -> None:
    done = await proc.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], timeout=5, stdin=b"x" * 300_000, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"x" * 300_000, b"wrong\n")


async def test_a_failure_holds_a_command_to_paste_and_the_end_of_stderr() -> None:
    with pytest.raises(ProcessError, match="ended with code 1: no such thing") as failed:
        await proc.run(["sh", "-c", "echo no such thing >&2; exit 1"], timeout=5)
    assert failed.value.command == "sh -c 'echo no such thing >&2; exit 1'"
    with pytest.raises(ProcessError, match="was killed by SIGSEGV"):
        await proc.run(["sh", "-c", "kill -SEGV $$"], timeout=5)


async def test_the_environment_is_clean_and_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "token")
    done = await proc.run(["env"], timeout=5, env={"GIVEN": "1"})
    assert "GIVEN=1" in done.text
    assert "SECRET" not in done.text


async def test_what_is_not_installed_names_its_package() -> None:
    with pytest.raises(UnsupportedError, match="apt-get install"):
        await proc.run(["no-such-program"], timeout=5)


async def test_a_slow_process_is_ended_with_its_group() -> None:
    with pytest.raises(DeadlineError, match="longer than"):
        await proc.run(["sh", "-c", "sleep 100 & sleep 100"], timeout=0.1)


async def test_one_that_prints_too_much_is_ended() -> None:
    with pytest.raises(ProcessError, match="more than 1000 bytes"):
        await proc.run(["yes"], timeout=10, output_limit=1000)


async def test_a_process_does_not_outlive_its_block_even_if_it_ignores_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proc, "TERM_GRACE", 0.1)
    monkeypatch.setattr(proc.end, "__defaults__", (0.1,))
    async with proc.spawn(["sh", "-c", STUBBORN], stdout=proc.PIPE) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
    assert process.returncode == -9
    assert gone(process.pid)


async def test_a_cancelled_caller_leaves_no_process() -> None:
    pids: list[int] = []

    async def work() -> None:
        async with proc.spawn(["sleep", "100"]) as process:
            pids.append(process.pid)
            await process.wait()

    task = asyncio.get_running_loop().create_task(work())
    while not pids:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gone(pids[0])


async def test_no_descriptor_is_left_and_none_but_those_named_is_handed_on(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+") as kept:
        before = descriptors()
        for _ in range(3):
            done = await proc.run(["sh", "-c", f"ls /proc/self/fd; echo hi >>/proc/self/fd/{kept.fileno()}"], timeout=5,
                                  stdin=b"x", pass_fds=(kept.fileno(),))  # fmt: skip
        await asyncio.sleep(0.05)
        assert descriptors() == before
    assert (tmp_path / "file").read_text() == "hi\n" * 3
    assert len(done.stdout.split()) <= 5  # 0, 1, 2, what `ls` opens, and the one named


async def test_the_ends_of_many_at_once_are_not_mixed_up() -> None:
    done = await asyncio.gather(*(proc.run(["sh", "-c", f"exit {n}"], timeout=20, check=False) for n in range(40)))
    assert [result.returncode for result in done] == list(range(40))


def test_it_is_the_same_on_the_daemons_loop() -> None:
    async def work() -> bytes:
        return (await proc.run(["cat"], timeout=5, stdin=b"y" * 100_000)).stdout

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) == b"y" * 100_000
