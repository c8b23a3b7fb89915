"""Ray's job server, as a client sees it: a job is sent, followed and told of."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from raydistill.commands.in_job import VERSION
from raydistill.errors import ConfigError, RaydistillError, first_line

AT_HOME = "http://127.0.0.1:8265"  # where `ray dashboard` and `kubectl port-forward` bring it
TRIES, PAUSE_S = 10, 2.0
FIRST_S, ANSWER_S = 10.0, 60.0  # within which it answers: whether it is there, and a request
CHARACTERS_A_SECOND = 100_000  # of the log, which is asked for whole
NEEDS = "submitting a job needs what `ray[default]` installs: pip install 'raydistill[cluster]'"
TOKEN = "export RAY_AUTH_MODE=token, with the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        id: by which Ray's own `ray job` commands know it.
        address: of the job server.
        status: Ray's word for it, as it was last seen.
        exit_code: of the command that the job ran; None while it runs.
    """

    id: str
    address: str
    status: str = "PENDING"
    exit_code: int | None = None

    @property
    def how_to(self) -> str:
        """The commands that follow and stop it."""
        at = f"--address {self.address} {self.id}"
        return f"follow it with `ray job logs --follow {at}`, stop it with `ray job stop {at}`"


def job_client(address: str) -> Any:
    """A client of Ray's job server.

    Args:
        address: as `http://host:8265`.

    Raises:
        ConfigError: what it needs is not installed, nobody answers there, or a token is wanted.
    """
    if not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"--address {address!r} is not one of a job server; give the dashboard's, such as {AT_HOME} (port 8265, "
            "not Ray's own 6379)"
        )
    try:
        import aiohttp  # noqa: F401
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ConfigError(f"{NEEDS} ({first_line(error)})") from error
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        """Ray's own waits for ever where a port is open and nobody answers, as at the end of a broken tunnel."""

        limit_s = FIRST_S

        def _do_request(self, *words: Any, **options: Any) -> Any:
            return super()._do_request(*words, **{"timeout": self.limit_s, **options})

    try:
        with _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # which would win over what the user says
            client = Client(address)
        client.limit_s = ANSWER_S
        return client
    except AuthenticationError as error:
        raise ConfigError(f"the cluster at {address} asks for a token, or for another one; {TOKEN}") from error
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray job server answers at {address} ({first_line(error)}); open a tunnel to it (`ray dashboard "
            "cluster.yaml`, or kubectl port-forward), or name another --address"
        ) from error


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def send(client: Any, words: list[str], environment: dict[str, Any], name: str) -> Job:
    """Give the server a job.

    Args:
        client: of `job_client`.
        words: of the command line of raydistill.
        environment: Ray's runtime environment.
        name: of the config, for people.

    Raises:
        RaydistillError: the server does not take it.
    """
    job = Job(f"raydistill-{name}-{uuid.uuid4().hex[:8]}", client.get_address())
    try:
        client.submit_job(
            entrypoint=shlex.join(["python", "-m", "raydistill.cli", *words]),
            submission_id=job.id,
            runtime_env=environment,
            metadata={"name": f"raydistill {words[0]} {name}", "raydistill": VERSION},
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise RaydistillError(f"the cluster at {job.address} took no job ({first_line(error)})") from error
    return job


def follow(client: Any, job: Job, show: Callable[[str], None]) -> Any:
    """Show a job's output as it comes; what Ray knows of the job at its end.

    The whole log is asked for each time: so a tunnel may break and be opened again.

    Args:
        show: hears each new part of the output.

    Raises:
        RaydistillError: the job server does not answer any more.
    """
    shown = misses = 0
    while True:
        try:
            info = client.get_job_info(job.id)  # first: what was written by its end is in the log then
            log: str = client.get_job_logs(job.id)
        except (RuntimeError, OSError) as error:
            misses += 1
            if misses == TRIES:
                raise RaydistillError(
                    f"lost sight of job {job.id} ({first_line(error)}); where it goes on: {job.how_to}"
                ) from error
            time.sleep(PAUSE_S)
            continue
        misses = 0
        show(log[shown:])
        shown = len(log)
        if info.status.is_terminal():
            return info
        time.sleep(PAUSE_S / 2 + shown / CHARACTERS_A_SECOND)


def ended(job: Job, info: Any) -> Job:
    """How a job ended: its command's exit code, as a shell says it.

    Args:
        info: of `follow`.

    Raises:
        RaydistillError: the command never began.
    """
    status, code, message = str(info.status.value), info.driver_exit_code, str(info.message or "")
    if status == "STOPPED":
        code = 128 + signal.SIGTERM
    elif "No module named raydistill" in message or "No module named 'raydistill'" in message:
        raise RaydistillError(
            f"the cluster of job {job.id} has no raydistill; install it there, or submit with --install"
        )
    elif code is None:
        why = " ".join(message.split())[:400] or f"its status is {status}"
        raise RaydistillError(f"job {job.id} did not run to its end: {why}")
    return replace(job, status=status, exit_code=code if code >= 0 else 128 - code)
