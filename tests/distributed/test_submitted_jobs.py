"""Jobs through Ray's own job API on a real head: their output, exit codes, places, and how they are stopped."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_heads import TOKEN, Head, ray_head
from small_runs import ROWS_WHEN_DISTILLED, Lab, assert_refused, differing, finish, report_of, teacher, wait_until

OWN_TEACHER = """
from own_layers import layers

def network(num_classes, **options):
    return layers(num_classes)
"""
OWN_LAYERS = """
from torch import nn

class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, num_classes))

    def forward(self, pixel_values):
        return self.layers(pixel_values)

def layers(num_classes):
    return Network(num_classes)
"""


@pytest.fixture(scope="module")
def head(lab: Lab) -> Iterator[Head]:
    lab.digits.resolve()  # written once
    with ray_head(lab, token=True) as head:
        yield head
    assert head.processes() == []


@pytest.fixture
def home(lab: Lab) -> Path:
    """A user's folder: a config, a teacher of their own that no node has, and much else."""
    folder = lab.new("home")
    folder.mkdir()
    own = teacher(model="own_teacher:network", placement={"num_cpus": 1, "label_selector": {"role": "teacher"}})
    config = lab.settings(teachers={"expert": own}, distill={"soft_labels": "remote"}, ray={"num_cpus": 7})
    (folder / "mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / "own_teacher.py").write_text(OWN_TEACHER, encoding="utf-8")
    (folder / "own_layers.py").write_text(OWN_LAYERS, encoding="utf-8")
    (folder / ".env").write_text("SECRET=1", encoding="utf-8")
    return folder


def job_named_in(text: str) -> str:
    [name] = set(re.findall(r"raydistill-digits-[0-9a-f]{8}", text))
    return name


def only_lines(text: str) -> None:
    """Nothing that steers a terminal."""
    wrong = sorted({character for character in text if not character.isprintable()} - {"\n", "\t"})
    assert wrong == [], repr(text)


def test_a_distillation_runs_there_with_a_teacher_from_here(head: Head, home: Path, lab: Lab) -> None:
    out = lab.new("run")
    done = head.run("raydistill", "submit", "mine.yaml", "--address", head.address, "--out", out, cwd=home)
    assert done.code == 0, done.stdout + done.stderr
    assert report_of(out)["tasks"]["digits"]["student_distilled"] > 0
    assert (out / "student" / "model.safetensors").is_file()
    only_lines(done.stdout)
    assert re.search(r"^\[\d\d:\d\d\] data: digits: 640 train", done.stdout, re.MULTILINE)
    assert f"the student is in {out}" in done.stdout
    assert "own_teacher.py, own_layers.py" in done.stderr and f"({'cache_dir'})" in done.stderr
    job = head.job(job_named_in(done.stderr))
    assert (job["status"], job["driver_exit_code"]) == ("SUCCEEDED", 0)
    work = head.folder / "session_latest" / "runtime_resources" / "working_dir_files"
    assert not [path for path in work.rglob("*") if path.name in (".env", "mine.yaml")]


def test_a_mistake_in_the_config_is_the_jobs_exit_code_and_message(head: Head, home: Path) -> None:
    (home / "wrong.yaml").write_text("extends: mine.yaml\ntraining: {num_step: 3}\n", encoding="utf-8")
    done = head.run(
        "ray", "job", "submit", "--address", head.address, "--working-dir", ".", "--submission-id", "wrong", "--",
        "raydistill", "distill", "wrong.yaml", "--out", "/nowhere", cwd=home,
    )  # fmt: skip
    assert done.code != 0
    job = head.job("wrong")
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)
    [line] = [line for line in job["message"].splitlines() if line.startswith("error: ")]
    assert "training.num_step" in line and "Traceback" not in job["message"]


def test_a_stopped_job_goes_on_when_it_is_submitted_again(head: Head, lab: Lab) -> None:
    out, config = lab.new("run"), lab.config()
    words = ["raydistill", "submit", config, "--address", head.address, "--out", out, f"store.path={lab.new('labels')}"]
    head.gate.close(rows=ROWS_WHEN_DISTILLED, after=6)
    following = head.start(*words)
    wait_until(head.gate.waiting)
    following.send_signal(signal.SIGINT)
    left = finish(following)
    job = job_named_in(left.stderr)
    assert left.code == 130
    assert f"job {job} goes on: follow it with `ray job logs --follow --address {head.address} {job}`" in left.stderr
    assert head.job(job)["status"] == "RUNNING"
    assert head.run("ray", "job", "stop", "--address", head.address, job).code == 0
    wait_until(lambda: head.job(job)["status"] == "STOPPED")
    assert "stopped; the same command goes on from here" in head.log(job)
    assert not (out / "report.json").exists() and not (out / ".lock").exists()
    head.gate.open()
    again = head.run(*words)
    assert again.code == 0, again.stdout + again.stderr
    assert any("went on from step 4" in event["what"] for event in report_of(out)["events"])
    assert max(differing(out, lab.distilled(config)).values(), default=0.0) < 1e-4  # of the one that was never a job


def test_a_sweep_runs_there(head: Head, home: Path, lab: Lab) -> None:
    out = lab.new("sweep")
    content: dict[str, Any] = {
        "config": str(lab.config()), "space": {"distill.temperature": {"float": [1, 4]}}, "search": {"num_trials": 9},
        "base": {"training.num_steps": 20},
    }  # fmt: skip
    (home / "space.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    done = head.run(
        "raydistill", "submit", "--tune", "space.yaml", "training.num_steps=8", "--trials", "1",
        "--address", head.address, "--out", out, cwd=home,
    )  # fmt: skip
    assert done.code == 0, done.stdout + done.stderr
    only_lines(done.stdout)
    sweep = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    assert len(sweep["trials"]) == 1
    assert yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["training"]["num_steps"] == 8


def test_another_token_is_refused_in_one_line(head: Head, home: Path) -> None:
    words = ["raydistill", "submit", "mine.yaml", "--address", head.address, "--out", "/nowhere"]
    done = head.run(*words, cwd=home, RAY_AUTH_TOKEN=TOKEN.upper())
    done.stderr = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("packed"))
    assert_refused(done, head.address, "asks for a token, or for another one", "RAY_AUTH_TOKEN")
