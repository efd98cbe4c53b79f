"""What `cuboid run` shows when the machine is gone before its output has come: the rest, from the log."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.cli.api import Api
from cuboid.cli.verbs.run import print_log


class LogApi:
    """Answers for a container's log, in pieces."""

    def __init__(self, pieces: dict[str, list[bytes]]) -> None:
        self._pieces = pieces

    def stream(self, method: str, path: str, *, query: Mapping[str, str]) -> io.BufferedIOBase:
        assert (method, path) == ("GET", "/api/v1/namespaces/default/pods/web/log")
        return cast(io.BufferedIOBase, Pieces(list(self._pieces[query["stream"]])))


class Pieces(io.BytesIO):
    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._left = pieces

    def read(self, size: int | None = -1) -> bytes:
        return self._left.pop(0) if self._left else b""


OUTPUT = st.lists(st.binary(min_size=1, max_size=5), max_size=4)


@given(out=OUTPUT, err=OUTPUT, data=st.data())
def test_the_log_goes_on_where_the_attachment_broke_off(out: list[bytes], err: list[bytes], data: Any) -> None:
    shown = Counter({
        number: data.draw(st.integers(0, len(b"".join(pieces)))) for number, pieces in ((1, out), (2, err))
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        stdout, stderr = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
        patch.setattr("sys.stdout", stdout)
        patch.setattr("sys.stderr", stderr)
        api = cast(Api, LogApi({"Stdout": out, "Stderr": err}))
        print_log(api, "default", "web", "main", tty=False, shown=shown)
    assert stdout.buffer.getvalue() == b"".join(out)[shown[1] :]
    assert stderr.buffer.getvalue() == b"".join(err)[shown[2] :]
