"""A real Ray head of a test's own, as `ray start --head` makes it, with its job server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from small_runs import Finished, Gate, Lab, finish, hear_ctrl_c, wait_until

BIN = Path(sys.executable).parent
TOKEN = "a-token-of-this-test-that-is-long-enough"


@dataclass
class Head:
    """A cluster of one node.

    Attributes:
        folder: of its sessions: every process of its own has it in its command line or in its environment.
        token: whether it asks for one.
        settings: more of its environment.
    """

    lab: Lab
    folder: Path
    port: int
    address: str
    token: bool
    gate: Gate
    settings: dict[str, str] = field(default_factory=dict)

    def environment(self, **changes: str) -> dict[str, str]:
        """Of whoever wants to talk to it, and of its own processes."""
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} if self.token else {"RAY_AUTH_MODE": "disabled"}
        return {
            **self.lab.environment(self.gate),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "TEST_HEAD": str(self.folder),
            **auth,
            **self.settings,
            **changes,
        }

    def start(self, *words: object, cwd: Path | None = None, **changes: str) -> subprocess.Popen[str]:
        """A command of the environment (`ray`, `raydistill`) with this head's token, in a session of its own."""
        return subprocess.Popen(
            [str(BIN / str(words[0])), *map(str, words[1:])], cwd=cwd or self.lab.folder,
            env=self.environment(**changes), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, preexec_fn=hear_ctrl_c,
        )  # fmt: skip

    def run(self, *words: object, cwd: Path | None = None, limit_s: float = 200.0, **changes: str) -> Finished:
        """The same to its end."""
        return finish(self.start(*words, cwd=cwd, **changes), limit_s)

    def ask(self, path: str) -> Any:
        """What the job server answers."""
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def job(self, name: str) -> dict[str, Any]:
        """What it knows of a job."""
        return dict(self.ask(f"/api/jobs/{name}"))

    def log(self, name: str) -> str:
        """A job's output so far."""
        return str(self.ask(f"/api/jobs/{name}/logs")["logs"])

    def processes(self) -> list[psutil.Process]:
        """All of its own that live."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = str(self.folder) in " ".join(process.cmdline())
                ours = ours or process.environ().get("TEST_HEAD") == str(self.folder)
                if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end(self) -> None:
        """Every process, by its id: another head's are none of ours."""

        def killed() -> bool:
            for process in (left := self.processes()):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            return not left

        wait_until(killed, 20)  # what is being started meanwhile is found the next time
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    """Ports where nobody listens now."""
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(socket.socket()) for _ in range(number)]
        for door in doors:
            door.bind(("127.0.0.1", 0))
        return [int(door.getsockname()[1]) for door in doors]


@contextlib.contextmanager
def ray_head(
    lab: Lab,
    token: bool,
    num_cpus: int = 2,
    role: str = "teacher",
    autoscaling: Callable[[int], dict[str, Any]] | None = None,
    **settings: str,
) -> Iterator[Head]:
    """`ray start --head` for as long as the block lasts; then none of its processes is left.

    Args:
        token: whether it asks for one.
        role: its label.
        autoscaling: makes the config of an autoscaler, of the head's port.
        settings: more of its environment.
    """
    port, dashboard, agent, client = free_ports(4)
    # Ray's sockets lie in it, and their names are short.
    folder = Path(tempfile.mkdtemp(prefix="rd", dir="/tmp"))
    head = Head(lab, folder, port, f"http://127.0.0.1:{dashboard}", token, lab.gate(), settings)
    more = []
    if autoscaling is not None:
        (folder / "autoscaling.json").write_text(json.dumps(autoscaling(port)), encoding="utf-8")
        more = [f"--autoscaling-config={folder / 'autoscaling.json'}"]
    try:
        started = head.run(
            "ray", "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
            f"--ray-client-server-port={client}", f"--num-cpus={num_cpus}", "--labels", f"role={role}",
            "--disable-usage-stats", *more,
        )  # fmt: skip
        assert started.code == 0, started.stdout + started.stderr
        wait_until(lambda: _answers(head))
        yield head
    finally:
        head.end()


def _answers(head: Head) -> bool:
    try:
        head.ask("/api/jobs/")
    except OSError:
        return False
    return True
