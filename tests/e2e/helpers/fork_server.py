"""Commands in processes of their own that are forked from one where all is imported: most of a small command's time.

The client is `ForkServer`; the server is this file as a program. A command gets its own session, environment, working
directory and files for what it prints, and ends as any interpreter does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, ClassVar

# Variables that no import reads: a test's own, and those that Ray sets where it was started.
READ_LATE = {"TEST_GATE", "PYTEST_CURRENT_TEST", "RAY_CLIENT_MODE", "PYTHONBREAKPOINT", "RAY_USAGE_STATS_ENABLED"}
MOST_BYTES = 100_000  # of one request
LATE = ("datasets", "optuna", "ray.data", "ray.train.torch", "ray.tune", "torchmetrics.functional.classification",
        "transformers.modeling_utils")  # fmt: skip


class Command:
    """A forked command: the part of `subprocess.Popen` that tests use.

    Attributes:
        pid: of the process, which leads a session of its own.
        returncode: its exit code, or minus the signal that ended it; None while it runs.
    """

    def __init__(self, words: list[str], news: int, printed: list[IO[str]]) -> None:
        self.args, self._news, self._printed = words, os.fdopen(news, "r", encoding="ascii"), printed
        self.pid = int(self._news.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, where it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._news.readline())
            self._news.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed until its end."""
        self.wait(timeout)
        told = []
        for file in self._printed:
            file.seek(0)
            told.append(file.read())
            file.close()
        return told[0], told[1]

    def send_signal(self, number: int) -> None:
        """To the process alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """At once."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts commands in one environment.

    Args:
        environment: of the server: what commands import is imported in it.
        key: what it is known by.
    """

    _ended: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, environment: dict[str, str], key: object = None) -> None:
        self.key = key
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, str(Path(__file__)), str(theirs.fileno())], pass_fds=[theirs.fileno()],
                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.pid = self._server.pid

    def start(self, words: list[str], cwd: Path, environment: dict[str, str]) -> Command:
        """`raydistill WORDS…`, running."""
        printed: list[IO[str]] = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        read, write = os.pipe()
        request = json.dumps({"words": words, "cwd": str(cwd), "environment": environment}).encode()
        assert len(request) < MOST_BYTES
        socket.send_fds(self._door, [request], [file.fileno() for file in printed] + [write])
        os.close(write)
        return Command(words, read, printed)

    def close(self) -> None:
        """End the server as soon as its commands have ended."""
        self._door.close()
        self._ended.append(self._server)
        self._ended[:] = [server for server in self._ended if server.poll() is None]


class ForkServers:
    """One server at a time, since each holds a GB of memory."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._last: object = None

    @property
    def pids(self) -> set[int]:
        """Of those that live."""
        closing = {server.pid for server in ForkServer._ended if server.poll() is None}
        return closing | ({self._server.pid} if self._server else set())

    def of(self, environment: dict[str, str]) -> ForkServer | None:
        """One of this environment, as far as imports depend on it; None the first time: it may be one command's own."""
        key = {name: value for name, value in environment.items() if name not in READ_LATE}
        again, self._last = self._last == key, key
        if self._server is not None and self._server.key == key:
            return self._server
        if not again:
            return None
        self.close()
        self._server = ForkServer(environment, key)
        return self._server

    def close(self) -> None:
        """End it as soon as its commands have ended."""
        if self._server is not None:
            self._server.close()
            self._server = None


def serve(door: socket.socket) -> dict[str, Any]:
    """Fork for every request: returns in the child, with what it is to run; the parent never does.

    Each command's last descriptor is for news: its process id first, its exit code at its end.
    """
    hearing, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    running: dict[int, int] = {}
    doors = [door]
    while doors or running:
        ready, _, _ = select.select([*doors, hearing], [], [])
        if hearing in ready:
            os.read(hearing, 1_000)
            _tell_of_ended(running)
        if door not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(door, MOST_BYTES, 3)
        if not request:
            doors.clear()
            continue
        pid = os.fork()
        if pid == 0:
            for each in (hearing, wake, door.detach(), *running.values()):
                os.close(each)
            return {**json.loads(request), "descriptors": descriptors}
        for each in descriptors[:2]:
            os.close(each)
        running[pid] = descriptors[2]
    os._exit(0)


def _tell_of_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        news = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it
            os.write(news, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os.close(news)


def become(words: list[str], cwd: str, environment: dict[str, str], descriptors: list[int]) -> None:
    """What a shell would have made of this process before it ran the command."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    out, err, news = descriptors
    for ours, theirs in ((out, 1), (err, 2)):
        os.dup2(ours, theirs)
        os.close(ours)
    sys.argv = ["raydistill", *words]
    os.write(news, f"{os.getpid()}\n".encode())
    os.close(news)


def import_all() -> None:
    """All that any command needs, under the settings that commands import it with.

    A fork has the thread that made it and no other; jemalloc starts its own again.
    """
    import raydistill
    from raydistill import cli
    from raydistill.commands import cluster

    cli.set_libraries_up()
    cluster.set_ray_up()
    for module in pkgutil.walk_packages(raydistill.__path__, "raydistill."):
        importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) - threads.count("jemalloc_bg_thd") == 1, f"a fork would lose {threads}"
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    import_all()
    become(**serve(socket.socket(fileno=int(sys.argv[1]))))
    from raydistill.cli import main

    main()
