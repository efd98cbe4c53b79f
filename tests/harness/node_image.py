"""The image of the node agent's VM tests: one small static program, in an OCI layout."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cuboid.images.base import ImageConfig
from tests.harness.images import make_layout, make_tar, member

SOURCE = r"""
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void ended(int number) { (void)number; write(1, "bye\n", 4); _exit(0); }

/* demo serve [TICK_MS] | exit CODE [TEXT] | cat PATH | write PATH TEXT | abort | true */
int main(int argc, char **argv) {
  const char *verb = argc > 1 ? argv[1] : "serve";
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (!strcmp(verb, "exit")) { if (argc > 3) puts(argv[3]); return atoi(argv[2]); }
  if (!strcmp(verb, "true")) return 0;
  if (!strcmp(verb, "abort")) abort();
  if (!strcmp(verb, "cat")) {
    char data[4096]; int file = open(argv[2], O_RDONLY); ssize_t count;
    if (file < 0) { perror(argv[2]); return 1; }
    while ((count = read(file, data, sizeof data)) > 0) write(1, data, count);
    return 0;
  }
  if (!strcmp(verb, "write")) {
    int file = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || write(file, argv[3], strlen(argv[3])) < 0) { perror(argv[2]); return 1; }
    return 0;
  }
  signal(SIGTERM, ended);
  puts("ready");
  for (long number = 0;; number++) {
    usleep(argc > 2 ? atoi(argv[2]) * 1000 : 1000000);
    if (argc > 2) printf("tick %ld\n", number);
  }
}
"""


def demo_layout(folder: Path) -> Path:
    """An OCI layout whose entrypoint is /demo."""
    source, program = folder / "demo.c", folder / "demo"
    source.write_text(SOURCE)
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True, timeout=60)
    subprocess.run(["strip", program], check=True, timeout=60)
    layer = make_tar([(member("demo", mode=0o755), program.read_bytes())])
    return make_layout(folder / "image", [layer], ImageConfig(entrypoint=("/demo",)), name="demo:1")
