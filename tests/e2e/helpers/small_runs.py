"""Small real runs for the tests of whole commands: data, a config, and the command line in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from fork_server import Command, ForkServers
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from raydistill.atomic import replacing
from raydistill.config.loader import load_config
from raydistill.teachers.checkpoints import teacher_folder

HELPERS = Path(__file__).parent
PARTS = {"train": range(640), "validation": range(640, 800), "test": range(800, 960)}
SERVERS = ForkServers()
ROWS_WHEN_TAUGHT, ROWS_WHEN_LABELLING, ROWS_WHEN_DISTILLED = 24, 64, 20  # batch sizes tell a gate what is going on


def wait_until(condition: Callable[[], Any], timeout_s: float = 300.0) -> Any:
    """The condition's first true value; an assertion fails where none comes in time, on however slow a machine."""
    ends = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < ends, f"not within {timeout_s} s"
        time.sleep(0.05)
    return value


def hear_ctrl_c() -> None:
    """Between fork and exec: a shell's background jobs, and what they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def write_digits(folder: Path, label: Callable[[int], str] = str, parts: dict[str, range] = PARTS) -> Path:
    """scikit-learn's digits as an image folder: folder/SPLIT/LABEL/*.png."""
    digits = load_digits()
    for split, rows in parts.items():
        for row in rows:
            place = folder / split / label(int(digits.target[row]))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).save(place / f"{row:04d}.png")
    return folder


def teacher(task: str = "digits", **changes: Any) -> dict[str, Any]:
    """The config of a teacher that is trained in a second."""
    return {
        "task": task,
        "loader": "python",
        "model": "gated_teacher:digit_network",
        "train": {"num_epochs": 6, "batch_size": ROWS_WHEN_TAUGHT, "learning_rate": 4e-3, "precision": "fp32"},
        "precision": "fp32",
        "batch_size": ROWS_WHEN_LABELLING,
        "placement": {"num_cpus": 1},
        "timeout_s": 120,  # loading counts, on however slow a machine
        **changes,
    }


def checkpoint_of(config: Path, name: str = "expert") -> Path:
    """The folder of a teacher that was trained under this config, among all that lie in the lab's cache."""
    return teacher_folder(load_config(config), name)


def student_weights(run: Path) -> dict[str, np.ndarray]:
    """The finished student's tensors."""
    return load_file(run / "student" / "model.safetensors")


def differing(one: Path, other: Path) -> dict[str, float]:
    """By tensor: the largest difference between the students of two runs, where there is any."""
    a, b = student_weights(one), student_weights(other)
    assert set(a) == set(b)
    return {key: float(np.abs(a[key] - b[key]).max()) for key in a if not np.array_equal(a[key], b[key])}


def assert_same_student(left: Path, right: Path) -> None:
    """Up to the order in which numbers were added."""
    one, two = student_weights(left), student_weights(right)
    for key in one:
        if not key.endswith("qkv.bias"):  # a key's bias cannot change attention: its gradient is rounding alone
            assert one[key] == pytest.approx(two[key], abs=1e-4), key


def report_of(run: Path) -> dict[str, Any]:
    """The content of report.json."""
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


@dataclass
class Finished:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """Lines of stderr that are not progress."""
        return [line for line in self.stderr.splitlines() if line.strip() and not line.startswith("[")]


@dataclass
class Gate:
    """Holds every teacher of a command at a chosen forward pass: see `gated_teacher`."""

    file: Path

    def close(self, rows: int, after: int) -> Gate:
        """From now on passes of `rows` rows wait, once `after` of them went through."""
        with replacing(self.file) as being_written:
            being_written.write_text(json.dumps({"rows": rows, "after": after}))
        return self

    def open(self) -> None:
        """Let all go on."""
        self.file.unlink(missing_ok=True)

    def waiting(self) -> list[int]:
        """Process ids of those that reached it."""
        return [int(path.suffix[1:]) for path in self.file.parent.glob(f"{self.file.name}.reached.*")]


@dataclass
class Lab:
    """A folder with data, a cache and configs, and the command line to run on them."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))
    _commands: list[subprocess.Popen[str] | Command] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def digits(self) -> Path:
        path = self.folder / "digits"
        return path if path.exists() else write_digits(path)

    def new(self, name: str) -> Path:
        """A path that nothing uses yet."""
        return self.folder / f"{name}-{next(self._numbers)}"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """A whole config as a mapping; `changes` replace its sections."""
        data = {"source": "imagefolder", "path": str(self.digits), "image_size": 8, "grayscale": True}
        return {
            "name": "digits",
            "cache_dir": str(self.cache),
            "tasks": {"digits": {"domain": "vision", "data": data}},
            "teachers": {"expert": teacher()},
            "student": {"size": "tiny", "width": 32, "depth": 1, "num_heads": 2, "dropout": 0.0, "patch_size": 4},
            "distill": {"soft_labels": "local"},
            "training": {
                "num_steps": 12, "batch_size": ROWS_WHEN_DISTILLED, "evaluate_every": 4, "precision": "fp32",
                "learning_rate": 3e-3,
            },
            "ray": {"num_cpus": 4},
            **changes,
        }  # fmt: skip

    def config(self, **changes: Any) -> Path:
        """The same as a file."""
        path = self.new("config").with_suffix(".yaml")
        path.write_text(yaml.safe_dump(self.settings(**changes), sort_keys=False), encoding="utf-8")
        return path

    def gate(self) -> Gate:
        """A gate of one test's own; open."""
        return Gate(self.new("gate"))

    def environment(self, gate: Gate | None = None) -> dict[str, str]:
        """Of a command: one thread, since several runs share few cores, and nothing of ours in the user's home."""
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]),
            "HF_HOME": str(self.folder / "hugging_face"),
            "COLUMNS": "200",
            "TEST_LAB": str(self.folder),
            "TEST_GATE": str(gate.file if gate else self.folder / "no-gate"),
        }

    def start(self, *words: object, gate: Gate | None = None, **options: Any) -> subprocess.Popen[str] | Command:
        """`raydistill WORDS…` in a session of its own, running; where nothing about it is special, a fork."""
        environment = self.environment(gate)
        server = None if options else SERVERS.of(environment)
        started: subprocess.Popen[str] | Command
        if server is not None:
            started = server.start([*map(str, words)], self.folder, environment)
        else:
            options.setdefault("preexec_fn", hear_ctrl_c)
            started = subprocess.Popen(
                [sys.executable, "-m", "raydistill.cli", *map(str, words)], cwd=self.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                start_new_session=True, **options,
            )  # fmt: skip
        self._commands.append(started)
        return started

    def run(self, *words: object, gate: Gate | None = None, limit_s: float = 200.0, **options: Any) -> Finished:
        """`raydistill WORDS…` to its end."""
        return finish(self.start(*words, gate=gate, **options), limit_s)

    def distilled(self, *words: object, **options: Any) -> Path:
        """The folder of a new run that finished well."""
        out = self.new("run")
        done = self.run("distill", *words, "--out", out, **options)
        assert done.code == 0, done.stderr
        return out

    def processes(self) -> list[psutil.Process]:
        """All that the lab's commands started and that still live, Ray's own included."""
        found, others = [], {os.getpid(), *SERVERS.pids}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("TEST_LAB") == str(self.folder)
                if ours and process.pid not in others and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end_commands(self) -> None:
        """Those that a failed test left, and all that they started: others would wait for the processor."""
        for command in self._commands:
            if command.poll() is None:
                family = [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]
                for process in family:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                command.communicate()
        self._commands.clear()

    def end_all(self) -> None:
        """Whatever a failed test left."""
        SERVERS.close()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def finish(process: subprocess.Popen[str] | Command, limit_s: float = 200.0) -> Finished:
    """What a started command left behind; killed, with a failed assertion, where it does not end in time."""
    try:
        stdout, stderr = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"still running after {limit_s} s: {stderr[-2000:]}") from None
    return Finished(process.returncode, stdout, stderr)


def assert_refused(done: Finished, *words: str) -> None:
    """Exit code 2 and one line that names all of `words`."""
    assert done.code == 2, f"exit code {done.code}: {done.stderr[-2000:]}"
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.errors) == 1, done.stderr
    assert done.errors[0].startswith("error: ")
    for word in words:
        assert word in done.errors[0]


def assert_nothing_half_written(out: Path, cache: Path) -> None:
    """The run holds its config and log at most, the cache no temporary file."""
    assert {path.name for path in out.glob("*")} <= {".lock", "config.yaml", "log.txt", "labelling.json"}
    assert [path for path in cache.rglob(".*") if path.is_file() or path.is_dir()] == []
