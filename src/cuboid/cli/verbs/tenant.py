"""`tenant create|ls|rm|token|kubeconfig|namespace`: who shares this platform, with what, and how they get in."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Annotated, Any

import typer

from cuboid.cli import common, config
from cuboid.cli.api import Api
from cuboid.cli.output import Format, Progress, age, print_lines, progress, show, table
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import DeadlineError, InvalidError, NotFoundError

Object = dict[str, Any]
TENANTS, TOKENS = "/apis/cuboid.dev/v1/tenants", "/apis/cuboid.dev/v1/tokens"
LABEL = "cuboid.dev/tenant"
READY_SECONDS = 30.0
END_SECONDS = 600.0
LOOK_AGAIN = 0.2  # seconds
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PAIRS = "NAME=VALUE"


def register(app: typer.Typer) -> None:
    tenant = typer.Typer(help="Share this platform among tenants.", no_args_is_help=True, rich_markup_mode=None)
    tenant.command("create", help=f"Make a tenant.\n\nExample: {_EXAMPLE}")(create)
    tenant.command("ls", help="List tenants.\n\nExample: cuboid tenant ls")(ls)
    tenant.command("rm", help="Remove tenants with all they have.\n\nExample: cuboid tenant rm acme")(rm)
    tenant.command(
        "token",
        help="Make a token, list them, or take some back.\n\n"
        "Example: cuboid tenant token acme --role view; cuboid tenant token ls; cuboid tenant token revoke acme-x2k4f",
    )(token)
    tenant.command(
        "kubeconfig",
        help="Print a kubeconfig with a new token.\n\nExample: cuboid tenant kubeconfig acme > acme.config",
    )(kubeconfig)
    tenant.command(
        "namespace",
        help="Add namespaces to a tenant, or remove them with all that is in them.\n\n"
        "Example: cuboid tenant namespace add acme acme-ci",
    )(namespace)
    app.add_typer(tenant, name="tenant")


_EXAMPLE = "cuboid tenant create acme --quota pods=20 --quota limits.memory=8Gi"
QUOTA = {
    "pods": "50",
    "limits.memory": "16Gi",
    "requests.storage": "100Gi",
    "persistentvolumeclaims": "20",
    "services": "50",
    "configmaps": "200",
    "secrets": "200",
    "count/deployments.apps": "50",
    "count/replicasets.apps": "500",
    "count/statefulsets.apps": "50",
    "count/jobs.batch": "200",
    "count/cronjobs.batch": "50",
}
"""What a tenant has unless more or less is said. Machines are sized by limits, so limits are what counts."""
MEMORY = "128Mi"
"""Limit of a container that names none: the quota wants every one to have a limit."""
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant.")]
Role = Annotated[str, typer.Option("--role", help="admin, edit or view.")]
Expires = Annotated[str, typer.Option("--expires", help="Life of the token: 30m, 12h, 30d, 8w.")]


def create(
    name: Name,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            "--quota", metavar=_PAIRS, help="Hard limit, as pods=20 or limits.memory=8Gi, instead of the usual."
        ),
    ] = None,
    default: Annotated[
        list[str] | None, typer.Option("--default", metavar=_PAIRS, help="Limit of containers that name none.")
    ] = None,
    unlimited: Annotated[
        bool, typer.Option("--unlimited", help="No limit but those of --quota and --default.")
    ] = False,
    weight: Annotated[int, typer.Option("--weight", help="Share of the API when it is busy, 1 to 100.")] = 1,
    member: Annotated[
        list[str] | None, typer.Option("--member", metavar="[ROLE:]user:NAME", help="Who belongs to it; or group:NAME.")
    ] = None,
    output: common.Output = Format.TABLE,
) -> None:
    spec: Object = {"weight": weight}
    limits, hard = pairs(default or []), pairs(quota or [])
    if not unlimited:
        limits, hard = {"memory": MEMORY, **limits}, {**QUOTA, **hard}
    if hard:
        spec["quota"] = hard
    if limits:
        spec["limits"] = [{"type": "Container", "default": limits}]
    if member:
        spec["members"] = [parse_member(text) for text in member]
    api, _ = common.connect()
    api.post(TENANTS, {"apiVersion": "cuboid.dev/v1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec})
    with progress() as line:
        made = _until_active(api, name, line)
    show(made, output, lambda: print(f"tenant {name} is ready; a token for it: cuboid tenant token {name}"))


def pairs(texts: list[str]) -> dict[str, str]:
    """`NAME=VALUE` each."""
    rows = [text.partition("=") for text in texts]
    wrong = next((text for text, (key, _, value) in zip(texts, rows, strict=True) if not key or not value), None)
    if wrong is not None:
        raise InvalidError(f"{wrong!r} is not NAME=VALUE", hint="for example pods=20 or memory=512Mi")
    return {key: value for key, _, value in rows}


def parse_member(text: str) -> Object:
    """`user:jane`, `group:devs`, `admin:user:jane`."""
    parts = text.split(":", 2) if text.split(":", 1)[0] in ("admin", "edit", "view") else ["edit", *text.split(":", 1)]
    kinds = {"user": "User", "group": "Group"}
    if len(parts) != 3 or parts[1] not in kinds or not parts[2]:
        raise InvalidError(f"{text!r} names no member", hint="user:NAME, group:NAME or admin:user:NAME")
    return {"role": parts[0], "kind": kinds[parts[1]], "name": parts[2]}


def _until_active(api: Api, name: str, line: Progress) -> Object:
    until = time.monotonic() + READY_SECONDS
    while True:
        found: Object = api.get(f"{TENANTS}/{name}")
        state = found.get("status", {})
        if state.get("phase") == "Active":
            return found
        line.update(f"tenant {name}", state.get("message", ""))
        if state.get("message") or time.monotonic() > until:
            why = state.get("message") or "nobody makes its namespaces"
            raise DeadlineError(f"tenant {name} is not ready: {why}", hint="see cuboid tenant ls -o wide")
        time.sleep(LOOK_AGAIN)


def ls(output: common.Output = Format.TABLE) -> None:
    api, _ = common.connect()
    answer = api.get(TENANTS)

    def as_text() -> None:
        rows = []
        for item in answer["items"]:
            state = item.get("status", {})
            cells = [item["metadata"]["name"], state.get("phase", ""), ",".join(state.get("namespaces", []))]
            cells += [item["spec"].get("weight", 1), age(item["metadata"]["creationTimestamp"])]
            rows.append([*cells, state.get("message", "")] if output is Format.WIDE else cells)
        wide = ("MESSAGE",) if output is Format.WIDE else ()
        table(("NAME", "STATUS", "NAMESPACES", "WEIGHT", "AGE", *wide), rows)

    show(answer, output, as_text)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of tenants.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until all that they have is gone.")] = True,
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    for name in names:
        api.delete(f"{TENANTS}/{name}")
    if wait:
        with progress() as line:
            for name in names:
                _until_gone(api, name, line)
    show({"removed": names}, output, lambda: print_lines(names))


def _until_gone(api: Api, name: str, line: Progress) -> None:
    until = time.monotonic() + END_SECONDS
    while True:
        try:
            state = api.get(f"{TENANTS}/{name}").get("status", {})
        except NotFoundError:
            return
        line.update(f"removing tenant {name}", state.get("message", ""))
        if time.monotonic() > until:
            raise DeadlineError(
                f"tenant {name} is still there: {state.get('message', '')}", hint="it goes on meanwhile"
            )
        time.sleep(LOOK_AGAIN)


# --- tokens ----------------------------------------------------------------------------------------------------------


def token(
    words: Annotated[list[str], typer.Argument(metavar="NAME | ls [NAME] | revoke TOKEN…")],
    role: Role = "edit",
    expires: Expires = "30d",
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    if words[0] == "ls":
        _list_tokens(api, words[1:], output)
    elif words[0] == "revoke":
        for name in words[1:]:
            api.delete(f"{TOKENS}/{name}")
        show({"revoked": words[1:]}, output, lambda: print_lines(words[1:]))
    elif len(words) == 1:
        made, secret = make_token(api, words[0], role, seconds_of(expires))
        show({**made, "token": secret}, output, lambda: print(secret))
    else:
        raise InvalidError("one tenant at a time", hint=f"cuboid tenant token {words[0]}")


def make_token(api: Api, tenant: str, role: str, seconds: int) -> tuple[Object, str]:
    """The Token object and the token, which nobody can show again: the server gets to know its hash alone."""
    try:
        api.get(f"{TENANTS}/{tenant}")
    except NotFoundError as error:
        raise NotFoundError(f"no tenant {tenant!r}", hint="cuboid tenant ls lists them") from error
    secret = "cuboid_" + secrets.token_urlsafe(32)
    spec = {
        "tenant": tenant, "role": role, "sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "expirationTimestamp": rfc3339(time.time() + seconds),
    }  # fmt: skip
    body = {"apiVersion": "cuboid.dev/v1", "kind": "Token", "metadata": {"generateName": f"{tenant}-"}, "spec": spec}
    return api.post(TOKENS, body), secret


def seconds_of(text: str) -> int:
    """`30m`, `12h`, `30d`, `8w`."""
    found = re.fullmatch(r"([1-9]\d{0,4})([mhdw])", text)
    if found is None:
        raise InvalidError(f"{text!r} is no length of time", hint="30m, 12h, 30d or 8w")
    return int(found[1]) * _UNITS[found[2]]


def _list_tokens(api: Api, names: list[str], output: Format) -> None:
    query = {"labelSelector": f"{LABEL} in ({','.join(names)})"} if names else {}
    answer = api.get(TOKENS, **query)

    def as_text() -> None:
        rows = [
            [item["metadata"]["name"], item["spec"]["tenant"], item["spec"]["role"],
             item["spec"]["expirationTimestamp"], age(item["metadata"]["creationTimestamp"])]
            for item in answer["items"]
        ]  # fmt: skip
        table(("NAME", "TENANT", "ROLE", "EXPIRES", "AGE"), rows)

    show(answer, output, as_text)


def kubeconfig(name: Name, role: Role = "edit", expires: Expires = "30d") -> None:
    from cuboid.server.kubeconfig import Access, render

    connection = config.find()
    _, secret = make_token(Api(connection), name, role, seconds_of(expires))
    print(render(Access(connection.server, connection.ca.encode(), secret, name)), end="")


# --- namespaces ------------------------------------------------------------------------------------------------------


def namespace(
    action: Annotated[str, typer.Argument(metavar="add|rm")],
    tenant: Name,
    names: Annotated[list[str], typer.Argument(metavar="NAMESPACE…")],
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    found = api.get(f"{TENANTS}/{tenant}")
    known = found["spec"].get("namespaces", [])
    if action == "add":
        wanted = [*known, *(name for name in names if name not in known)]
    elif action == "rm" and tenant not in names and set(names) <= set(known):
        wanted = [name for name in known if name not in names]
    elif action == "rm":
        raise InvalidError(
            f"tenant {tenant} has no such namespace beside its first one", hint=f"one of {', '.join(known)}"
        )
    else:
        raise InvalidError(f"{action!r} is neither add nor rm", hint="cuboid tenant namespace add acme acme-ci")
    patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": {"namespaces": wanted}}
    api.patch(f"{TENANTS}/{tenant}", patch)
    if action == "rm":
        for name in names:
            api.delete(f"/api/v1/namespaces/{name}")
    else:
        with progress() as line:
            _until_namespaces(api, tenant, names, line)
    show({"tenant": tenant, "namespaces": [tenant, *wanted]}, output, lambda: print_lines(names))


def _until_namespaces(api: Api, tenant: str, names: list[str], line: Progress) -> None:
    until = time.monotonic() + READY_SECONDS
    while not set(names) <= set(_until_active(api, tenant, line)["status"].get("namespaces", [])):
        if time.monotonic() > until:
            raise DeadlineError(
                f"namespaces of tenant {tenant} do not come into being", hint="cuboid tenant ls -o wide"
            )
        time.sleep(LOOK_AGAIN)
