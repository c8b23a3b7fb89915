"""Ray for the length of a command."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from raydistill.commands.in_job import clusters_own, in_job
from raydistill.commands.token import check_token
from raydistill.config.models import Config
from raydistill.errors import ConfigError, first_line

CONNECT_S, START_S, LOOK_S = 5.0, 60.0, 0.05
UNREACHED = (
    "start one with `ray start --head`; one that asks for a token wants RAY_AUTH_MODE=token here, and the token in "
    "RAY_AUTH_TOKEN or ~/.ray/auth_token"
)


def needs_ray(config: Config) -> bool:
    """Whether anything of a distillation is remote."""
    return config.training.num_workers > 0 or config.distill.soft_labels != "local"


def set_ray_up() -> None:
    """Before it starts: its workers read it, too."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # what Ray says of nodes goes into logs and files, too


@contextlib.contextmanager
def cluster(config: Config) -> Iterator[None]:
    """A connection to the configured cluster, or a Ray of our own that ends with the block.

    Raises:
        ConfigError: the address does not answer.
    """
    import ray

    set_ray_up()
    if ray.is_initialized():
        yield
        return
    # A job's Ray is the cluster that it was submitted to, and holds what came with it.
    settings = clusters_own(config.ray) if in_job() else config.ray
    own = settings.num_cpus is not None or settings.num_gpus is not None
    if settings.address:
        knock(settings.address)
    elif not own:
        knock_at_default()
    if settings.address or not own:
        try_token(settings.address)
    address = settings.address or ("local" if own else None)
    _keep_token_private(address)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                connection(
                    # Nothing said: the Ray that `ray start` left on this machine, else one of our own.
                    address=address,
                    num_cpus=None if settings.address else settings.num_cpus,
                    num_gpus=None if settings.address else settings.num_gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            if settings.address:
                raise ConfigError(
                    f"cannot reach Ray at ray.address {settings.address!r} ({first_line(error)}); {UNREACHED}"
                ) from error
            raise ConfigError(f"cannot start Ray ({first_line(error)}); see `ray status` for one that runs") from error
        yield


@contextlib.contextmanager
def connection(**options: Any) -> Iterator[None]:
    """`ray.init` with these options, for as long as the block lasts.

    It runs in a thread of its own: in the main one a signal would end it half way, its locks held and its processes
    left. The thread lives as long as the connection: Ray's processes end with the thread that started them.

    Raises:
        ConnectionError, ValueError, RuntimeError: as `ray.init`.
    """
    import ray

    starter = ThreadPoolExecutor(1)
    starting = starter.submit(ray.init, **options)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    mine = callable(on_sigterm) and threading.current_thread() is threading.main_thread()
    try:
        while not wait([starting], LOOK_S).done:
            if mine:
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it, to print its stack
        starting.result()
        if mine:
            signal.signal(signal.SIGTERM, on_sigterm)
        yield
    finally:
        wait([starting], START_S)  # where a signal came meanwhile
        ray.shutdown()
        starter.shutdown(wait=False)


def knock_at_default() -> None:
    """At the Ray that the environment names, where it does.

    Raises:
        ConfigError: none is there.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        knock(address, "RAY_ADDRESS")


def knock(address: str, name: str = "ray.address") -> None:
    """Ray itself would try for many minutes to reach an address where nobody is, or somebody else.

    Args:
        name: where the user said it.

    Raises:
        ConfigError: no Ray is there.
    """
    if address.startswith("ray://"):
        raise ConfigError(
            f"{name} {address!r} is one of Ray Client, through which no run works; run this on a node of the cluster "
            "with its own address (host:6379), or use `raydistill submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S) as door:
            if not _speaks_http2(door):
                raise ConfigError(
                    f"what answers at {name} {address!r} is no Ray; `ray status` on the head node shows its "
                    "address (port 6379 unless `ray start` was given another)"
                )
    except (OSError, ValueError) as error:  # the latter: no host name
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"no Ray answers at {name} {address!r} ({why}); start one with `ray start --head`, or leave {name} out"
        ) from error


def _speaks_http2(door: socket.socket) -> bool:
    """As every Ray does, since gRPC is made of it: its first frame is one of settings, and comes at once (RFC 9113)."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True  # it speaks behind a handshake of its own
    door.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while len(answer) < 4 and (more := door.recv(4 - len(answer))):
            answer += more
    return answer[3:] == b"\4"


def try_token(address: str | None) -> None:
    """At the Ray that would be joined, where there is one; None: the one that the environment or this machine has.

    Raises:
        ConfigError: it wants another token.
    """
    named = address or os.environ.get("RAY_ADDRESS")
    found = find_running() if named in (None, "auto") else named
    if found and ":" in found:
        check_token(found)


def find_running() -> str | None:
    """The address of the Ray that `ray start` left on this machine, where one did; it need not answer any more."""
    from ray._private.utils import read_ray_address

    return read_ray_address() or None


def _keep_token_private(address: str | None) -> None:
    """A Ray of our own makes the user's token where there is none, for all to read; made by us first, nobody else can.

    Args:
        address: that `ray.init` is given.
    """
    joins = address not in (None, "local") or (address is None and (os.environ.get("RAY_ADDRESS") or find_running()))
    given = any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if joins or given:
        return
    with contextlib.suppress(OSError, RuntimeError):  # Ray then says what is wrong
        file = Path.home() / ".ray" / "auth_token"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as token:
            token.write(secrets.token_hex(32))


def largest_node(resource: str) -> float:
    """The most of a resource that one node of the cluster has."""
    import ray

    return max((node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
