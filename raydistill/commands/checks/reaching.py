"""Ray itself: where it is, whether we may join it, and who else may."""

from __future__ import annotations

import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from raydistill.commands.checks.findings import Finding, bad, good, warning
from raydistill.commands.cluster import find_running, knock
from raydistill.config.models import RayConfig
from raydistill.errors import ConfigError

DASHBOARD_S = 3.0
OWN = "none runs here: a command starts its own and ends it"
TOKEN_FIX = "export RAY_AUTH_MODE=token and put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token"


@dataclass(frozen=True)
class Token:
    """What of a token there is on this side, never the token itself.

    Attributes:
        where: the variable or the file that holds one; None: there is none.
        mode: of the file's permissions; None: it is no file.
        auth_mode: RAY_AUTH_MODE; None: it is not set.
    """

    where: str | None
    mode: int | None
    auth_mode: str | None


def find_address(config: RayConfig) -> str | None:
    """What `ray.init` is to be given to join what a command would join; None: it would start a Ray of its own.

    Raises:
        ConfigError: nobody answers where it should be.
    """
    import ray

    if ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    if not config.address and (config.num_cpus is not None or config.num_gpus is not None):
        return None
    named, name = (config.address, "ray.address") if config.address else (os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS")
    if named == "auto" and name == "ray.address" and os.environ.get("RAY_ADDRESS"):
        named, name = os.environ["RAY_ADDRESS"], "RAY_ADDRESS"  # as Ray itself reads `auto`
    if named and named not in ("auto", "local"):
        knock(named, name)
        return named
    running = None if named == "local" else find_running()
    if running:
        try:
            knock(running)
        except ConfigError as error:
            raise ConfigError(
                f"`ray start` left the address {running} on this machine, and no Ray answers there; run `ray stop`, "
                "which forgets it, or start that Ray again"
            ) from error
    # Not its address: only a Ray that is found is joined with the token of this machine.
    return "auto" if running or named == "auto" else None


def read_token() -> Token:
    """Where Ray would look for one, in its order."""
    auth_mode = os.environ.get("RAY_AUTH_MODE")
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Token("RAY_AUTH_TOKEN", None, auth_mode)
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return Token(str(file), stat.S_IMODE(file.stat().st_mode), auth_mode)
    except OSError:
        return Token(None, None, auth_mode)


def judge_token(token: Token) -> list[Finding]:
    """What lies on this side."""
    found = []
    if token.mode is not None and token.mode & 0o077:
        text = f"{token.where} can be read by others here (mode {token.mode:o})"
        found.append(warning("token", text, f"chmod 600 {token.where}"))
    if (token.auth_mode or "").lower() == "token" and token.where is None:
        found.append(bad("token", "RAY_AUTH_MODE is token, and there is none", TOKEN_FIX))
    return found


def judge_refusal(text: str, version: str, python: str) -> Finding:
    """Why Ray did not let us in.

    Args:
        text: its error and those behind it.
        version, python: ours.
    """
    theirs = re.search(r"cluster was started with:\s*Ray: (\S+)\s*Python: (\S+)", text)
    if theirs:
        fix = f"use the cluster's versions here: Python {theirs[2]}, pip install ray=={theirs[1]}"
        text = f"the cluster has Ray {theirs[1]} on Python {theirs[2]}, this is Ray {version} on Python {python}"
        return bad("Ray", text, fix)
    if "AuthenticationError" in text or "Unauthenticated" in text or "authentication token" in text:
        return bad("Ray", "the cluster asks for a token, and this side has none or another one", TOKEN_FIX)
    why = (text.strip().splitlines() or ["no answer"])[0][:200]
    fix = "run this on a node of the cluster (`ray start --address=…` makes one of this machine), or see `ray status`"
    return bad("Ray", f"it does not let this process join ({why})", fix)


def judge_ray(ray: Mapping[str, Any], nodes: list[Mapping[str, Any]], python: str) -> list[Finding]:
    """Which one it is, and what its nodes have."""
    count = f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    found = [good("Ray", f"{ray['version']} on Python {python} at {ray['address']}, {count}")]
    for node in nodes:
        has = node["resources"]
        parts = [f"{has.get('CPU', 0):g} CPU", f"{has.get('GPU', 0):g} GPU", f"{has.get('memory', 0) / 2**30:.1f} GiB"]
        known = ("CPU", "GPU", "memory", "object_store_memory")
        parts += [f"{value:g} {name}" for name, value in sorted(has.items()) if name not in known and ":" not in name]
        labels = {key: value for key, value in node["labels"].items() if not key.startswith("ray.io/")}
        parts += [f"{key}={value}" for key, value in sorted(labels.items())]
        found.append(good("node", f"{name_of(node)}: {', '.join(parts)}"))
    return found


def judge_openness(asks_for_token: bool | None, nodes: list[Mapping[str, Any]], address: str) -> list[Finding]:
    """Whoever may talk to Ray may run anything on its nodes."""
    if asks_for_token:
        return [good("token", "the cluster asks for one, and ours is right")]
    if asks_for_token is None or all(is_local(node["address"]) for node in nodes):
        return []
    return [
        warning(
            "token", f"the cluster asks for none: whoever reaches {address} can run code on its nodes",
            "start every node with RAY_AUTH_MODE=token, or keep Ray's ports behind a firewall",
        )
    ]  # fmt: skip


def ask_dashboard(url: str) -> int | None:
    """The status of an answer to somebody without a token; None: no answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{url.removeprefix('http://')}/api/version", timeout=DASHBOARD_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def judge_dashboard(url: str, status: int | None) -> list[Finding]:
    """Jobs are submitted to the dashboard's port: who may, may run anything.

    Args:
        url: that Ray gives, host:port; empty where there is none.
        status: see `ask_dashboard`.
    """
    if not url:
        return []
    host = url.removeprefix("http://").rpartition(":")[0].strip("[]")
    if status in (401, 403):
        return [good("dashboard", f"{url} asks for a token")]
    if is_local(host):
        return [good("dashboard", f"{url} can be reached from its own machine only")]
    if status is None:
        return [good("dashboard", f"{url} cannot be reached from here")]
    return [
        warning(
            "dashboard", f"{url} is open to the network and asks for no token: whoever reaches it can run jobs",
            "start Ray with RAY_AUTH_MODE=token, or with --dashboard-host=127.0.0.1",
        )
    ]  # fmt: skip


def is_local(host: str) -> bool:
    """Nobody else can reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def name_of(node: Mapping[str, Any]) -> str:
    """A node, for people: several may be on one machine."""
    return f"{node['host'] or node['address']} ({node['id'][:6]})"
