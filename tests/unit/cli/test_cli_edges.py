"""What a command prints, copies and answers: hostile text and archives do no harm."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.cli import api, config, output, streams
from cuboid.cli import main as main_module
from cuboid.cli.main import exit_code
from cuboid.cli.verbs import cp
from cuboid.cli.verbs.info import _event_row, _stats_table
from cuboid.cli.verbs.lifecycle import _seconds
from cuboid.cli.verbs.logs import _as_json, _since
from cuboid.cli.verbs.ps import _start
from cuboid.cli.verbs.why import print_receipt
from cuboid.lib import errors


@given(st.text())
def test_text_of_a_guest_cannot_drive_the_terminal(text: str) -> None:
    assert not any(
        (ord(letter) < 32 and letter not in "\t\n") or 127 <= ord(letter) < 160 for letter in output.clean(text)
    )


def test_writing_that_is_turned_round_is_shown_as_it_is() -> None:
    assert output.clean("safe \u202efdp.exe\u2066 \u200bx\u2028") == "safe \\u202efdp.exe\\u2066 \\u200bx\\u2028"
    assert output.clean("na\u00efve \u65e5\u672c \U0001f600") == "na\u00efve \u65e5\u672c \U0001f600"


def test_an_error_that_quotes_a_guest_does_not_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise errors.InvalidError("a\033]0;owned\007", hint="\033[2J")

    monkeypatch.setattr(main_module, "build", fail)
    with pytest.raises(SystemExit):
        main_module.main()
    assert capsys.readouterr().err == "cuboid: a\\x1b]0;owned\\x07\n  try: \\x1b[2J\n"


def test_a_table_is_padded_and_free_of_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "STATUS"), [("a\033[31m", "Running"), ("long-name", "x")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NAME       STATUS"
    assert lines[1] == "a\\x1b[31m  Running"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (90000, "1d")]
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert output.age("2026-01-01T00:00:00Z", now=1767225600 + seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (200 << 20, "200MiB"), (3 << 40, "3.0TiB")]
)
def test_sizes_have_three_figures(count: int, text: str) -> None:
    assert output.size(count) == text


def test_an_error_of_the_api_keeps_its_meaning() -> None:
    body = json.dumps({"kind": "Status", "reason": "AlreadyExists", "message": "taken", "code": 409}).encode()
    found = api.error_of(409, body)
    assert isinstance(found, errors.AlreadyExistsError)
    assert found.message == "taken"
    assert isinstance(api.error_of(503, b"not json"), errors.UnavailableError)
    assert isinstance(api.error_of(418, b""), errors.CuboidError)


@given(st.integers(400, 599), st.binary(max_size=200))
def test_any_answer_of_a_server_is_one_error(status: int, body: bytes) -> None:
    assert api.error_of(status, body).message


def test_exit_codes_tell_what_kind_of_failure_it_was() -> None:
    assert exit_code(errors.InvalidError("x")) == 2
    assert exit_code(errors.UnavailableError("x")) == 3
    assert exit_code(errors.HostileError("x")) == 1


def test_a_remote_commands_status_is_its_exit_code() -> None:
    assert streams.exit_code({"status": "Success"}) == 0
    causes = [{"reason": "ExitCode", "message": "42"}]
    assert streams.exit_code({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}) == 42
    with pytest.raises(errors.NotFoundError):
        streams.exit_code({"status": "Failure", "reason": "NotFound", "message": "no such command", "code": 404})
    with pytest.raises(errors.UnavailableError):
        streams.exit_code({})


def archive(*entries: tarfile.TarInfo) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    stream.seek(0)
    return stream


def entry(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 1) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    found.size = size if kind == tarfile.REGTYPE else 0
    return found


FOLDER = entry("etc", kind=tarfile.DIRTYPE)


def test_a_copied_file_takes_the_targets_name_or_goes_below_a_folder(tmp_path: Path) -> None:
    cp.unpack(archive(entry("hosts")), tmp_path / "mine", "hosts")
    cp.unpack(archive(entry("hosts")), tmp_path, "hosts")
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "hosts").read_bytes() == b"x"


def test_a_copied_folder_lands_below_an_existing_one_or_takes_the_targets_name(tmp_path: Path) -> None:
    inside = [entry("etc/hosts"), entry("etc/also", kind=tarfile.LNKTYPE, link="etc/hosts"),
              entry("etc/link", kind=tarfile.SYMTYPE, link="hosts")]  # fmt: skip
    for target, found in ((tmp_path, tmp_path / "etc"), (tmp_path / "new", tmp_path / "new")):
        cp.unpack(archive(FOLDER, *inside), target, "etc")
        assert [(found / name).read_bytes() for name in ("hosts", "also", "link")] == [b"x"] * 3


def test_a_whole_root_is_copied_into_the_target(tmp_path: Path) -> None:
    cp.unpack(archive(entry(".", kind=tarfile.DIRTYPE), entry("./hosts")), tmp_path / "dump", ".")
    assert (tmp_path / "dump/hosts").exists()


@pytest.mark.parametrize(
    ("path", "name"), [("/etc/hosts", "hosts"), ("/etc/", "etc"), ("/", "."), ("/a/..", "."), ("/a/.", "."), ("b", "b")]
)
def test_a_copied_thing_is_called_as_the_agent_calls_it(path: str, name: str) -> None:
    assert cp.copied_name(path) == name


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return entry(name, kind=kind, link=to)


@pytest.mark.parametrize(
    "hostile",
    [
        [],
        [entry("../outside")],
        [entry("other")],
        [entry("."), entry("./other")],
        [entry("etc"), entry("other")],
        [entry("etc"), entry("etc")],
        [FOLDER, entry("other")],
        [FOLDER, entry("etc/../../outside")],
        [FOLDER, entry("etc/../other")],
        [FOLDER, link("etc/link", "/etc/passwd")],
        [FOLDER, link("etc/link", "../other"), entry("etc/link")],
        [FOLDER, link("etc/hard", "other", tarfile.LNKTYPE)],
        [FOLDER, link("etc/hard", "etc/../other", tarfile.LNKTYPE)],
        [FOLDER, entry("etc/device", kind=tarfile.CHRTYPE)],
        [link("etc", "secrets"), entry("etc/other")],
    ],
)
def test_a_hostile_archive_leaves_nothing_beside_what_was_asked_for(
    tmp_path: Path, hostile: list[tarfile.TarInfo]
) -> None:
    target = tmp_path / "home"
    (target / "secrets").mkdir(parents=True)
    (target / "other").write_text("mine")
    with pytest.raises(errors.InvalidError):
        cp.unpack(archive(*hostile), target, "etc")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert {path.name for path in target.iterdir()} <= {"secrets", "other", "etc"}
    assert list((target / "secrets").iterdir()) == []
    assert (target / "other").read_text() == "mine"


def test_a_link_that_an_earlier_copy_left_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    cp.unpack(archive(link("etc", "secrets")), tmp_path, "etc")
    with pytest.raises(errors.InvalidError, match="symbolic link"):
        cp.unpack(archive(FOLDER, entry("etc/key")), tmp_path, "etc")
    assert list((tmp_path / "secrets").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("web:/etc", ("web", "/etc")), ("web:", ("web", "/")), ("./a:b", None), ("/a", None), ("a", None), ("-", None)],
)
def test_a_pods_path_is_told_from_one_of_this_machine(text: str, found: tuple[str, str] | None) -> None:
    assert cp.split(text) == found


def test_a_stop_without_a_time_takes_an_earlier_ones_away() -> None:
    assert _seconds(5) == {"cuboid.dev/stop-seconds": "5"}
    assert _seconds(0) == {"cuboid.dev/stop-seconds": "0"}
    assert _seconds(None) == {"cuboid.dev/stop-seconds": None}


@given(st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"")))
def test_any_line_of_a_log_is_one_row_of_json(line: bytes) -> None:
    row = json.loads(_as_json(b"2026-01-02T03:04:05Z " + line + b"\n", "app"))
    assert row == {"container": "app", "time": "2026-01-02T03:04:05Z", "log": line.decode(errors="replace")}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"metadata": {"name": "web"}}, ["web"]),
        ({"items": [{"metadata": {"name": "a"}}, {"name": "data"}, {"id": "sha256:1"}]}, ["a", "data", "sha256:1"]),
        ([{"metadata": {"name": "a"}}], ["a"]),
        ({"removed": ["x"]}, []),
    ],
)
def test_names_alone_are_those_of_the_things_in_an_answer(value: object, names: list[str]) -> None:
    assert output.names(value) == names


def test_an_event_that_came_again_says_how_often() -> None:
    event = {"reason": "Started", "message": "Started container main", "metadata": {}}
    assert _event_row(event | {"count": 2})[-1] == "Started container main (x2)"
    assert _event_row(event)[-1] == "Started container main"


def test_since_reads_spans_and_times() -> None:
    assert _since("10m") == {"sinceSeconds": "600"}
    assert _since("2026-01-02T03:04:05Z") == {"sinceTime": "2026-01-02T03:04:05Z"}
    with pytest.raises(errors.InvalidError):
        _since("soon")


def test_without_a_platform_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBOID_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("CUBOID_SERVER", raising=False)
    with pytest.raises(errors.UnavailableError) as told:
        config.find()
    assert "cuboid up" in told.value.hint


def test_a_kubeconfig_with_our_context_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"
    file.write_text(
        "contexts:\n- name: cuboid\n  context: {cluster: c, user: u, namespace: team}\n"
        "clusters:\n- name: c\n  cluster: {server: 'https://h:1', certificate-authority-data: UEVN}\n"
        "users:\n- name: u\n  user: {token: secret}\n"
    )
    monkeypatch.setenv("CUBOID_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("CUBOID_SERVER", raising=False)
    found = config.find()
    assert (found.server, found.token, found.ca, found.namespace) == ("https://h:1", "secret", "PEM", "team")
    assert "secret" not in repr(found)


def test_stats_show_the_hosts_memory_once_a_pod_and_of_paused_pods_that_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = {"pod": "web", "privateBytes": 48 << 20, "guestBytes": 30 << 20, "translationBytes": 8 << 20}
    rows = [{"pod": "web", "container": name, "memoryBytes": 1 << 20} for name in ("main", "side")]
    _stats_table({"items": rows, "machines": [machine, {"pod": "asleep", "privateBytes": 40 << 20}]}, True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][-6:] == ["HOST", "MEMORY", "GUEST", "PAGES", "CODE", "VMM"]
    assert lines[1][0] == "asleep" and lines[1].count("-") == 10
    assert lines[2][-4:] == ["48.0MiB", "30.0MiB", "8.0MiB", "-"]
    assert lines[3][-4:] == ["-"] * 4


def test_a_receipt_says_how_the_machine_came_up_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    receipt = {
        "totalSeconds": 0.25,
        "driver": "qemu",
        "accel": "tcg",
        "start": "cold",
        "notes": ["an own \033[1mkernel"],
    }
    print_receipt(receipt)
    said = capsys.readouterr().out
    assert "start: cold (the machine booted its kernel)\n" in said and "note: an own \\x1b[1mkernel" in said
    print_receipt({"start": "warm\033[0m"})
    assert "start: warm\\x1b[0m\n" in capsys.readouterr().out
    assert _start(receipt) == "0.25s cold" and _start(None) == "-"
