"""Servers that people run, from Debian's packages, each in a virtual machine of its own."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
SERVICES, BUSYBOX = image("services"), image("busybox")
POSTGRES = """
set -e
bin=$(ls -d /usr/lib/postgresql/*/bin)
if [ ! -e $PGDATA/PG_VERSION ]; then $bin/initdb --no-sync -A trust > /dev/null; fi
exec $bin/postgres -c fsync=off -c unix_socket_directories=/tmp -c shared_buffers=16MB
"""


def talk(place: Platform, port: int, text: str) -> str:
    """What a server on the host's loopback answers to one line, with plain line ends."""
    script = (
        "import socket, sys\n"
        f"s = socket.create_connection(('127.0.0.1', {port}), 10); s.settimeout(10)\n"
        "s.sendall(sys.stdin.buffer.read()); sys.stdout.buffer.write(s.recv(65536))\n"
    )
    return place.run(["python3", "-c", script], stdin=text, check=False).stdout


def answers(place: Platform, port: int, text: str, wanted: str) -> bool:
    return wanted in talk(place, port, text)


def test_redis_keeps_its_data_on_a_named_volume_over_a_restart(pods: Platform) -> None:
    pods.cuboid(
        "run", "-d", "--name", "redis", "-p", "6379:6379", "-v", "redis-data:/data", SERVICES,
        "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes",
    )  # fmt: skip
    kube.until(lambda: answers(pods, 6379, "PING\r\n", "+PONG"), "redis answers")
    assert talk(pods, 6379, "SET greeting hello\r\n") == "+OK\n"
    pods.cuboid("restart", "redis")
    kube.until(lambda: answers(pods, 6379, "PING\r\n", "+PONG"), "redis answers again")
    assert talk(pods, 6379, "GET greeting\r\n") == "$5\nhello\n"
    pods.cuboid("rm", "-f", "redis")
    pods.cuboid("volume", "rm", "redis-data")


def test_postgresql_runs_as_its_user_and_answers_queries(pods: Platform) -> None:
    owner = pods.cuboid("run", "--rm", "-q", SERVICES, "id", "-u", "postgres").stdout.strip()
    container = {
        "image": SERVICES, "command": ["sh", "-c", POSTGRES], "env": [{"name": "PGDATA", "value": "/data/pg"}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}], "resources": {"limits": {"memory": "256Mi"}},
        "readinessProbe": {
            "exec": {"command": ["sh", "-c", "/usr/lib/postgresql/*/bin/pg_isready -h /tmp"]},
            "periodSeconds": 1, "timeoutSeconds": 10,
        },
    }  # fmt: skip
    security = {"runAsUser": int(owner), "runAsGroup": int(owner), "fsGroup": int(owner)}
    kube.apply(
        pods,
        kube.manifest("pg", container, securityContext=security, volumes=[{"name": "data", "emptyDir": {}}]),
    )
    pods.wait("pg", kube.ready, timeout=150)
    queries = "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000); SELECT sum(n) FROM t;"
    psql = ["psql", "-h", "/tmp", "-U", "postgres", "-At", "-c", queries]
    assert pods.cuboid("exec", "pg", *psql).stdout.splitlines()[-1] == "500500"
    assert kube.shell(pods, "pg", "id -u").strip() == owner


def test_a_python_server_serves_a_file_that_was_copied_in(
    pods: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = tmp_path_factory.mktemp("page") / "index.html"
    page.write_text("copied in")
    pods.cuboid(
        "run", "-d", "--name", "python", "-p", "8000:8000", "-w", "/srv", SERVICES,
        "python3", "-c", "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)",
    )  # fmt: skip
    pods.cuboid("cp", str(page), "python:/srv/index.html")
    kube.until(lambda: answers(pods, 8000, "GET / HTTP/1.0\r\n\r\n", "200 OK"), "the server answers")
    script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/', timeout=20).read().decode())"
    assert pods.run(["python3", "-c", script]).stdout == "copied in\n"


def test_ten_pods_started_at_once_all_answer(pods: Platform) -> None:
    names = [f"many-{number}" for number in range(10)]
    container = {
        "image": BUSYBOX, "command": ["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"],
        "resources": {"limits": {"memory": "32Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5},
    }  # fmt: skip
    kube.apply(pods, *(kube.manifest(name, container) for name in names))
    ips = {}
    for name in names:
        pod = pods.wait(name, kube.ready, timeout=240)
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
        ips[name] = pod["status"]["podIP"]
    fetch = "".join(f"wget -q -O - http://{ip}/; " for ip in ips.values())
    assert kube.shell(pods, names[0], fetch).split() == names
    assert len(set(ips.values())) == len(names)
    assert len(json.loads(pods.cuboid("ps", "-o", "json").stdout)["items"]) == len(names)
