"""`cuboid run`'s options become the Pod that a Docker user means, or one sentence that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.cli import manifest
from cuboid.lib.errors import InvalidError


def container(**options: Any) -> dict[str, Any]:
    pod = manifest.pod(manifest.RunOptions(image="debian:12", name="p", **options))
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def test_an_image_alone_is_a_pod_that_runs_once() -> None:
    pod = manifest.pod(manifest.RunOptions(image="debian:12"))
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["containers"] == [{"name": "main", "image": "debian:12", "imagePullPolicy": "IfNotPresent"}]
    assert manifest.NAME.fullmatch(pod["metadata"]["name"])


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("80", {"containerPort": 80, "hostPort": 80, "protocol": "TCP"}),
        ("8080:80", {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}),
        ("53:53/udp", {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}),
        ("127.0.0.1:8080:80", {"containerPort": 80, "hostPort": 8080, "protocol": "TCP", "hostIP": "127.0.0.1"}),
        ("[::1]:8080:80", {"containerPort": 80, "hostPort": 8080, "protocol": "TCP", "hostIP": "::1"}),
    ],
)
def test_ports_read_as_docker_reads_them(text: str, row: dict[str, Any]) -> None:
    assert container(ports=(text,))["ports"] == [row]


@pytest.mark.parametrize("text", ["", "a", "80:", ":80", "0:80", "80:70000", "1.2.3:80:80", "80/icmp", "8080:80:80"])
def test_a_wrong_port_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidError) as refused:
        container(ports=(text,))
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("512m", "512Mi"),
        ("1g", "1Gi"),
        ("1.5g", "1536Mi"),
        ("300000", "300000"),
        ("64MB", "64Mi"),
        ("2Gi", "2Gi"),
        ("1024k", "1Mi"),
    ],
)
def test_sizes_read_as_docker_or_kubernetes_writes_them(text: str, quantity: str) -> None:
    assert container(memory=text)["resources"] == {"limits": {"memory": quantity}}


@given(st.text(max_size=20))
def test_any_text_as_a_size_is_a_quantity_or_one_sentence(text: str) -> None:
    try:
        assert manifest.memory_quantity("-m", text)
    except InvalidError as error:
        assert "-m" in error.message


@given(st.text(max_size=30))
def test_any_text_as_a_port_is_a_row_or_one_sentence(text: str) -> None:
    try:
        row = manifest.port_row(text)
    except InvalidError as error:
        assert "-p" in error.message
    else:
        assert 1 <= row["containerPort"] <= 65535


def test_a_host_path_is_refused_naming_cp_and_nfs() -> None:
    for source in ("/srv/data", "./data", "~/data", ".."):
        with pytest.raises(InvalidError) as refused:
            container(volumes=(f"{source}:/data",))
        assert "cuboid cp" in refused.value.hint
        assert "NFS" in refused.value.hint


def test_a_named_volume_may_be_mounted_twice_and_read_only() -> None:
    pod = manifest.pod(manifest.RunOptions(image="i", name="p", volumes=("data:/a", "data:/b:ro")))
    assert [row["name"] for row in pod["spec"]["volumes"]] == ["volume-data"]
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert mounts == [
        {"name": "volume-data", "mountPath": "/a"},
        {"name": "volume-data", "mountPath": "/b", "readOnly": True},
    ]


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a" * 64, "a/b"])
def test_a_name_that_dns_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        manifest.pod(manifest.RunOptions(image="i", name=name or "."))


def test_environment_files_come_first_and_bare_keys_take_the_callers_value(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=1\nB=file\nC\n")
    found = manifest.read_env(["B=given", "D", "E"], [str(file)], {"C": "mine", "D": "d"})
    assert found == ("A=1", "B=given", "C=mine", "D=d")


def test_a_missing_environment_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="nowhere"):
        manifest.read_env([], [str(tmp_path / "nowhere")], {})


@pytest.mark.parametrize("value", ["0", "-1", "two", "nan", "inf"])
def test_cpus_must_be_a_positive_number(value: str) -> None:
    with pytest.raises(InvalidError, match="--cpus"):
        container(cpus=value)


def test_an_entrypoint_is_split_as_a_shell_would() -> None:
    found = container(entrypoint="sh -c 'echo hi'", args=("x",))
    assert found["command"] == ["sh", "-c", "echo hi"]
    assert found["args"] == ["x"]


def test_user_numbers_are_the_security_contexts() -> None:
    assert container(user="1000:50")["securityContext"] == {"runAsUser": 1000, "runAsGroup": 50}
    assert "annotations" not in manifest.pod(manifest.RunOptions(image="i", user="0"))["metadata"]


@pytest.mark.parametrize("user", ["www-data", "app:staff", "1000:staff", "_apt"])
def test_user_names_are_left_to_the_image(user: str) -> None:
    pod = manifest.pod(manifest.RunOptions(image="i", user=user))
    assert pod["metadata"]["annotations"] == {"cuboid.dev/user": user}
    assert "securityContext" not in pod["spec"]["containers"][0]


@pytest.mark.parametrize("user", ["a b", ":", "a:", ":a", "-x", "x" * 65, "a:b:c", "1\n"])
def test_what_is_no_user_is_refused_with_an_example(user: str) -> None:
    with pytest.raises(InvalidError, match="not a user"):
        container(user=user)


def test_stdin_ends_with_its_only_user_but_for_terminals_and_detached_pods() -> None:
    def once(**options: Any) -> bool:
        pod = manifest.pod(manifest.RunOptions(image="i", name="p", stdin=True, **options))
        assert (pod["metadata"].get("annotations") == {"cuboid.dev/attach": "true"}) == options.get("attach", False)
        return bool(pod["spec"]["containers"][0].get("stdinOnce"))

    assert once(attach=True)
    assert not once(attach=True, tty=True)
    assert not once()


def test_a_kernel_and_its_arguments_are_annotations() -> None:
    options = manifest.RunOptions(image="debian:12", kernel="general", kernel_args=("nokaslr", "mitigations=off"))
    assert manifest.pod(options)["metadata"]["annotations"] == {
        "cuboid.dev/kernel": "general", "cuboid.dev/kernel-args": "nokaslr mitigations=off",
    }  # fmt: skip
    with pytest.raises(InvalidError, match="--kernel fast"):
        manifest.pod(manifest.RunOptions(image="debian:12", kernel="fast"))


def test_a_twentieth_of_a_cpu_is_a_limit() -> None:
    assert container(cpus="0.05")["resources"]["limits"]["cpu"] == "50m"
