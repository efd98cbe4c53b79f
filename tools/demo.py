"""`make run`: the platform, a real registry, a real image, a pod with a published port, its page, its receipt."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from cuboid.images.push import push_layout
from cuboid.lib.paths import Paths
from tools import debian_images

ROOT = Path(__file__).resolve().parent.parent
CUBOID = str(ROOT / ".venv/bin/cuboid")
REGISTRY = "localhost:5000"
IMAGE = f"{REGISTRY}/demo/nginx:1"
PAGE = "http://127.0.0.1:8080/"
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"\033[2m[demo {time.monotonic() - STARTED:5.1f}s]\033[0m {text}", file=sys.stderr, flush=True)


def cuboid(*arguments: str, check: bool = True, capture: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([CUBOID, *arguments], check=False, text=True, capture_output=capture, timeout=600)
    if check and done.returncode:
        sys.exit(f"demo: cuboid {' '.join(arguments)} failed\n{done.stderr or ''}")
    return done


def answers(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return str(response.read().decode(errors="replace"))
    except (urllib.error.URLError, OSError, TimeoutError):
        return None


def stored(name: str, tag: str) -> bool:
    """Whether the registry has the image. It hides what it has from who does not say that OCI is understood."""
    kinds = ", ".join(f"application/vnd.oci.image.{kind}.v1+json" for kind in ("index", "manifest"))
    request = urllib.request.Request(f"http://{REGISTRY}/v2/{name}/manifests/{tag}", headers={"Accept": kinds})
    try:
        with urllib.request.urlopen(request, timeout=2):
            return True
    except (urllib.error.URLError, OSError, TimeoutError):
        return False


def wait_for(url: str, seconds: float, what: str) -> str:
    until = time.monotonic() + seconds
    while (content := answers(url)) is None:
        if time.monotonic() > until:
            sys.exit(f"demo: {what} does not answer at {url} after {seconds:g} s")
        time.sleep(0.05)
    return content


def ensure_registry() -> None:
    """Debian's docker-registry on loopback; one that answers already is used as it is."""
    if answers(f"http://{REGISTRY}/v2/") is not None:
        return
    folder = Paths.default().state / "demo-registry"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "config.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: warn}}\nhttp: {{addr: 127.0.0.1:5000}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
    )
    say("starting a registry on localhost:5000")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(configuration)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip
    (Paths.default().run / "demo-registry.pid").write_text(f"{process.pid}\n")
    wait_for(f"http://{REGISTRY}/v2/", 20, "the registry")


def ensure_image() -> None:
    if stored("demo/nginx", "1"):
        return
    if not debian_images.present("nginx"):
        say("building an nginx image from Debian's packages (half a minute, once)")
    layout = debian_images.layout("nginx")
    say(f"pushing it as {IMAGE}")
    asyncio.run(push_layout(layout, IMAGE))


def ensure_pod() -> None:
    found = cuboid("inspect", "demo", check=False, capture=True)
    if found.returncode == 0:
        pod = json.loads(found.stdout)
        if pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp"):
            return
        say("removing the old demo pod")
        cuboid("rm", "-f", "demo", capture=True)
    say("running it as the pod demo, port 8080 published")
    cuboid("run", "-d", "--name", "demo", "--restart", "always", "-p", "8080:80", IMAGE)


def stop() -> int:
    """Undo all that a run started; images and packages stay."""
    cuboid("rm", "-f", "demo", check=False, capture=True)
    cuboid("down")
    pid_file = Paths.default().run / "demo-registry.pid"
    try:
        pid = int(pid_file.read_text())
        if b"docker-registry" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        pass
    pid_file.unlink(missing_ok=True)
    return 0


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("demo: root is needed: sudo make run")
    if sys.argv[1:] == ["--stop"]:
        return stop()
    cuboid("up")
    ensure_registry()
    ensure_image()
    ensure_pod()
    page = wait_for(PAGE, 30, "nginx in the pod")
    say(f"{PAGE} answers: {page.strip()[:100]}")
    print()
    cuboid("why", "demo")
    print(
        "\nNext:\n"
        "  cuboid ps                       what runs\n"
        "  cuboid exec -it demo bash       a shell inside its virtual machine\n"
        "  cuboid logs -f demo             what it writes\n"
        f"  cuboid run --rm {IMAGE} cat /etc/os-release\n"
        "  kubectl --context cuboid get pods\n"
        "  make stop                       end the demo, its registry and the platform"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
