"""`/healthz`, `/livez` and `/readyz`: open to all, for probes.

`?verbose` names the checks, `?exclude` leaves some out.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from cuboid.server.context import Context
from cuboid.server.paths import unknown_path

PATHS = ("/healthz", "/livez", "/readyz")


def _checks(context: Context, path: str) -> dict[str, bool]:
    """By name, whether each is fine."""
    found = {"ping": True, "log": True, "store": context.registry.store.revision > 0}
    if path.startswith("/readyz"):
        found["shutdown"] = not context.stopping
    return found


async def answer(request: Request, context: Context) -> Response:
    name = request.url.path.strip("/")
    checks = _checks(context, request.url.path)
    excluded = set(request.query_params.getlist("exclude"))
    fine = all(good for check, good in checks.items() if check not in excluded)
    if fine and "verbose" not in request.query_params:
        return PlainTextResponse("ok")
    lines = []
    for check, good in checks.items():
        word = "excluded: ok" if check in excluded else "ok" if good else "failed: reason withheld"
        lines.append(f"[{'+' if good or check in excluded else '-'}]{check} {word}")
    lines.append(f"{name} check {'passed' if fine else 'failed'}")
    return PlainTextResponse("\n".join(lines) + "\n", 200 if fine else 500)


async def one(request: Request, context: Context) -> Response:
    """One check by its name."""
    good = _checks(context, request.url.path).get(request.path_params["check"])
    if good is None:
        raise unknown_path()
    return PlainTextResponse("ok" if good else "failed: reason withheld", 200 if good else 500)
