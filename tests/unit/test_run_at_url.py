"""A run folder at a URL: any machine goes on with it, one at a time; what cannot be copied is told and not lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import failing_files
import pytest
from failing_files import FlakyFiles
from run_folders import begun

import raydistill
from raydistill.commands.folders import write_atomically
from raydistill.commands.in_job import JOB, RUNS, place_to_write
from raydistill.commands.run_at_url import is_of_workers
from raydistill.commands.run_folder import RunFolder, folder_for_notes, read_run
from raydistill.config.models import Config
from raydistill.errors import ConfigError, RaydistillError, RemoteError
from raydistill.remote import owner, sending
from raydistill.remote.copies import MANIFEST
from raydistill.remote.files import Remote
from raydistill.tuning.space import load_space, sweep_path

Machine = Callable[[str], Config]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/run" if request.param == "file" else f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[str]:
    failing_files.reset()
    yield f"flaky://{tmp_path}/bucket/run"
    failing_files.reset()


@pytest.fixture
def machine(make_config: Callable[..., Config], tmp_path: Path) -> Machine:
    """The config as a machine with a cache of its own has it."""
    return lambda name, **sections: make_config(("mood",), cache_dir=str(tmp_path / name), **sections)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BEAT_S": 0.05, "DEAD_S": 0.4, "LOOK_S": 0.02, "SETTLE_S": 0.02}.items():
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr(sending, "PAUSES_S", (0.0, 0.05, 0.1))


def work(folder: RunFolder, finished: bool = False) -> None:
    """What a run leaves."""
    for path in (folder.arm("alone", 0) / "best.pt", folder.arm("alone", 0) / "latest.pt"):
        write_atomically(path, "half way")
    write_atomically(folder.initial(0) / "model.safetensors", "weights")
    if finished:
        write_atomically(folder.student / "model.safetensors", "a student")
        write_atomically(folder.report, '{"tasks": {}}')


def leave(
    config: Config,
    url: str,
    finished: bool = False,
    again: bool = False,
    ends: Callable[[RunFolder], object] = lambda folder: None,
) -> Path:
    with begun(config, url, again) as folder:
        work(folder, finished)
        ends(folder)
    return folder.path


def fail(error: BaseException) -> None:
    raise error


def cut_off(folder: RunFolder) -> None:
    """The URL fails from now on, and something is left to copy."""
    FlakyFiles.broken = "the network is gone"
    write_atomically(folder.metrics, "{}")


def names(url: str) -> set[str]:
    return set(Remote(url, "--out").find())


def test_a_run_is_worked_on_in_the_cache_and_copied_to_its_url(machine: Machine, url: str, tmp_path: Path) -> None:
    folder = leave(machine("one"), url)
    assert folder.is_relative_to(tmp_path / "one" / "runs")
    assert names(url) == {
        MANIFEST, "config.yaml", "checkpoints/alone-seed0/best.pt", "checkpoints/alone-seed0/latest.pt",
        "checkpoints/initial-seed0/model.safetensors",
    }  # fmt: skip


def test_another_machine_goes_on_with_it(machine: Machine, url: str) -> None:
    leave(machine("one"), url)
    with begun(machine("two"), url) as folder:
        assert (folder.arm("alone", 0) / "latest.pt").read_text() == "half way"
        assert folder.initial(0).exists() and folder.called == url


def test_an_error_and_a_signal_leave_all_at_the_url(machine: Machine, url: str) -> None:
    for error in (RaydistillError("no"), KeyboardInterrupt(), SystemExit(143)):
        with pytest.raises(type(error)):
            leave(machine("one"), url, again=True, ends=lambda folder, error=error: fail(error))
        assert "checkpoints/alone-seed0/latest.pt" in names(url) and owner.OWNER not in names(url)


def test_a_finished_run_starts_over_there_too(machine: Machine, url: str) -> None:
    leave(machine("one"), url, finished=True)
    assert {"report.json", "student/model.safetensors"} <= names(url)
    with begun(machine("two"), url) as folder:
        assert not folder.report.exists() and not folder.student.exists()
        assert names(url) == {MANIFEST, "config.yaml", owner.OWNER}


def test_a_run_of_another_config_is_refused_and_left_alone(machine: Machine, url: str) -> None:
    leave(machine("one"), url)
    before = names(url)
    with pytest.raises(ConfigError, match="holds a run of another config") as caught:
        leave(machine("two", distill={"temperature": 7.0}), url)
    assert url in str(caught.value) and names(url) == before


def test_a_url_of_something_else_is_refused_and_left_alone(machine: Machine, url: str, tmp_path: Path) -> None:
    Remote(url, "--out").write(b"years of work", "thesis.tex")
    with pytest.raises(ConfigError, match=r"not a run folder \(it holds thesis\.tex\)"):
        leave(machine("one"), url)
    assert names(url) == {"thesis.tex"}


def test_a_run_that_was_copied_there_by_hand_is_gone_on_with(machine: Machine, url: str, tmp_path: Path) -> None:
    with begun(machine("one"), tmp_path / "run") as folder:
        work(folder)
    for path in folder.path.rglob("*"):
        if path.is_file():
            Remote(url, "--out").write(path.read_bytes(), *path.relative_to(folder.path).parts)
    with begun(machine("two"), url) as there:
        assert (there.arm("alone", 0) / "latest.pt").exists()


def test_two_machines_do_not_write_one_run(machine: Machine, url: str) -> None:
    with begun(machine("one"), url), pytest.raises(ConfigError, match=r"is writing .*another --out"):
        leave(machine("two"), url)
    leave(machine("two"), url)


def test_two_processes_of_a_machine_do_not_either(machine: Machine, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket/run"
    with begun(machine("one"), url) as folder:
        code = (
            "import sys\nfrom raydistill.commands.run_folder import open_run\n"
            "from raydistill import ConfigError, load_config\n"
            "try:\n    with open_run(load_config(sys.argv[1]), sys.argv[2]): print('opened')\n"
            "except ConfigError as error: print(error)"
        )
        words = [sys.executable, "-c", code, str(folder.config), url]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"another process is writing {url}" in done.stdout


def test_a_url_that_cannot_be_reached_is_told_before_anything_is_made(machine: Machine, tmp_path: Path) -> None:
    for url, kind in (("ftp://127.0.0.1:1/run", RemoteError), ("nonsense://run", ConfigError)):
        with pytest.raises(kind, match=rf"--out {url}"):
            leave(machine("one"), url)
    assert not (tmp_path / "one").exists()


def test_a_url_that_cannot_be_written_is_told_before_the_run_begins(
    machine: Machine, flaky: str, tmp_path: Path
) -> None:
    FlakyFiles.broken = "no rights"
    with pytest.raises(RemoteError, match=r"--out flaky://.*no rights"):
        leave(machine("one"), flaky)


def test_a_url_that_fails_in_the_end_costs_nothing_and_the_same_command_copies_what_is_left(
    machine: Machine, flaky: str, tmp_path: Path
) -> None:
    with pytest.raises(RemoteError, match="nothing is lost") as caught:
        leave(machine("one"), flaky, finished=True, ends=cut_off)
    (here,) = (tmp_path / "one" / "runs").iterdir()
    assert str(here) in str(caught.value) and (here / "report.json").exists()
    failing_files.reset()
    assert "report.json" not in names(flaky)
    with begun(machine("one"), flaky) as folder:
        assert folder.report.exists() and {"report.json", "student/model.safetensors"} <= names(flaky)
    with begun(machine("one"), flaky) as folder:  # from here on it is a finished run like any other
        assert not folder.report.exists()


def test_an_error_is_told_though_the_url_fails_too(
    machine: Machine, flaky: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(folder: RunFolder) -> None:
        cut_off(folder)
        raise RaydistillError("no teacher")

    with pytest.raises(RaydistillError, match="no teacher"):
        leave(machine("one"), flaky, ends=end)
    assert "nothing is lost" in capsys.readouterr().err


def test_a_run_on_workers_leaves_to_them_what_they_write(machine: Machine, url: str) -> None:
    config = machine("one", training={"num_workers": 2})
    with begun(config, url) as folder:
        work(folder)
        write_atomically(folder.arm("alone", 0) / "events.jsonl", "of the command")
        Remote(url, "--out").write(b"newer", "checkpoints", "alone-seed0", "latest.pt")
    assert "checkpoints/alone-seed0/best.pt" not in names(url)
    assert Remote(url, "--out").read("checkpoints", "alone-seed0", "latest.pt") == b"newer"
    assert "checkpoints/alone-seed0/events.jsonl" in names(url)
    with begun(config, url, again=True):
        assert not any(is_of_workers(name) for name in names(url))


def test_reports_are_read_from_a_url_and_written_back(machine: Machine, url: str) -> None:
    leave(machine("one"), url, finished=True)
    with read_run(url) as (folder, changed):
        assert folder.read_report() == {"tasks": {}} and not folder.checkpoints.exists()
        assert folder.name_of(folder.html) == f"{url}/report.html"
        write_atomically(folder.html, "<html>")
        changed("report.html")
    assert "report.html" in names(url) and not folder.path.exists()
    with pytest.raises(ConfigError, match=rf"{url}/nothing is not a run folder"):
        raydistill.report(f"{url}/nothing")


def test_logs_of_other_commands_lie_there_and_are_no_obstacle(machine: Machine, url: str) -> None:
    for name in ("one", "two"):
        with folder_for_notes(machine(name), url) as folder, (folder / "log.txt").open("a") as log:
            log.write(f"{name}\n")
    assert Remote(url, "--out").read("log.txt") == b"one\ntwo\n"
    with begun(machine("three"), url) as run:
        assert run.log.read_text() == "one\ntwo\n"


def test_where_runs_lie_may_be_a_url(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(RUNS, f"{url}/")
    monkeypatch.setenv(JOB, "{}")
    assert place_to_write(None, "digits") == f"{url}/digits"
    assert place_to_write("s3://bucket/run", "digits") == "s3://bucket/run"
    with begun(machine("one"), None) as folder:
        assert folder.called == f"{url}/tiny"
    monkeypatch.setenv(RUNS, "nonsense://runs")
    with pytest.raises(ConfigError, match="RAYDISTILL_RUNS nonsense://runs/tiny"):
        leave(machine("one"), None)  # type: ignore[arg-type]


def test_a_sweep_at_a_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"a sweep cannot lie at the URL .*storage that every node sees"):
        sweep_path(load_space("smoke"), url)


def test_the_manifest_and_the_owner_tell_no_secrets(machine: Machine, url: str) -> None:
    with begun(machine("one"), url) as folder:
        work(folder)
        card = json.loads(Remote(url, "--out").read(owner.OWNER))
    assert set(card) == {"id", "copy", "host", "pid", "beat", "at"} and card["pid"] == os.getpid()
    assert set(json.loads(Remote(url, "--out").read(MANIFEST))) == {"copy", "files"}
