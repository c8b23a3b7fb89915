"""A run folder: gone on with, started over, or refused, never silently mixed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import begun

from raydistill.commands.folders import write_atomically
from raydistill.commands.run_folder import RunFolder, open_run
from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    expert = {"task": "mood", "loader": "transformers", "model": "bert", "train": {}}
    return make_config(("mood",), teachers={"expert": expert})


def leave(config: Config, out: Path, finished: bool) -> None:
    """What a run of this config leaves behind, whole or stopped half way."""
    with begun(config, out) as folder:
        folder.checkpoints.mkdir(exist_ok=True)
        (folder.checkpoints / "latest.pt").write_text("half way", encoding="utf-8")
        folder.metrics.write_text("{}\n", encoding="utf-8")
        if finished:
            folder.student.mkdir(exist_ok=True)
            write_atomically(folder.report, '{"tasks": {}}')
            write_atomically(folder.html, "<html>")


def holds_work(out: Path) -> bool:
    return (out / "checkpoints" / "latest.pt").exists()


def test_a_fresh_folder_gets_the_resolved_config_and_no_lock_stays(config: Config, tmp_path: Path) -> None:
    with begun(config, tmp_path / "deep" / "run") as folder:
        assert folder.read_config() == config
    assert [file.name for file in folder.path.iterdir()] == ["config.yaml"]


OWNER = """
import contextlib, os, pathlib, sys, time
from raydistill.commands.folders import owned
from raydistill.errors import ConfigError
folder, mark = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
ends, times = time.monotonic() + 2, 0
while time.monotonic() < ends:
    with contextlib.suppress(ConfigError), owned(folder):
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # fails where another one is inside
        times += 1
        time.sleep(0.002)
        mark.unlink()
print(times)
"""


def test_of_two_processes_that_come_and_go_one_owns_it_at_a_time(tmp_path: Path) -> None:
    words = [sys.executable, "-c", OWNER, str(tmp_path / "run"), str(tmp_path / "mark")]
    owners = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for owner in owners:
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
    for owner in owners:
        assert owner.stdin is not None
        owner.stdin.write("go\n")
        owner.stdin.flush()
    told = [owner.communicate(timeout=60) for owner in owners]
    assert not any(err for _, err in told) and sum(int(out) for out, _ in told) > 10, told


def test_again_replaces_what_nobody_can_read(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=True)
    (tmp_path / "config.yaml").write_text("of: another version")
    with pytest.raises(ConfigError, match="start over with --again"), open_run(config, tmp_path):
        pass
    with begun(config, tmp_path, again=True) as folder:
        assert folder.read_config() == config and not holds_work(tmp_path)


def test_damaged_fingerprints_of_the_inputs_are_told(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=False)
    with open_run(config, tmp_path) as folder:
        folder.inputs.write_text('{"the data')
        with pytest.raises(ConfigError, match=r"inputs\.json is damaged.*--again"):
            folder.check_inputs({})


def test_without_out_the_run_is_named_after_the_config(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run(config, None) as folder:
        assert folder.path == tmp_path / "runs" / "tiny"


def test_an_unfinished_run_of_the_same_config_goes_on(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=False)
    with open_run(config, tmp_path):
        assert holds_work(tmp_path)


def test_a_finished_run_starts_over(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=True)
    with open_run(config, tmp_path) as folder:
        assert holds_work(tmp_path) and folder.report.exists()  # a run that is refused from here on costs nothing
        folder.begin(config)
        assert not holds_work(tmp_path)
        assert not any(file.exists() for file in (folder.report, folder.html, folder.metrics))


def test_a_finished_run_goes_on_where_more_seeds_are_asked_for(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=True)
    more = config.model_copy(update={"num_seeds": 3})
    with begun(more, tmp_path) as folder:
        assert holds_work(tmp_path) and folder.read_config().num_seeds == 3


def test_where_it_runs_and_where_its_cache_lies_may_differ(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=False)
    on_gpu = PlacementConfig(num_gpus=1)
    moved = config.model_copy(
        update={
            "cache_dir": "/elsewhere",
            "ray": config.ray.model_copy(update={"num_cpus": 7}),
            "training": config.training.model_copy(
                update={"placement": PlacementConfig(num_gpus=1), "max_failures": 9}
            ),
            "teachers": {
                name: teacher.model_copy(update={"placement": on_gpu, "max_replicas": 8})
                for name, teacher in config.teachers.items()
            },
        }
    )
    assert moved.teachers
    with begun(moved, tmp_path) as folder:
        assert holds_work(tmp_path) and folder.read_config() == moved


def test_a_folder_where_nothing_was_trained_yet_is_free_for_another_config(config: Config, tmp_path: Path) -> None:
    with begun(config, tmp_path) as folder:
        folder.ledger.write_text("{}", encoding="utf-8")
    other = config.model_copy(update={"seed": 5})
    with begun(other, tmp_path) as folder:
        assert folder.read_config() == other and not folder.ledger.exists()


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_of_another_config_is_refused_with_the_first_difference(
    config: Config, tmp_path: Path, finished: bool
) -> None:
    leave(config, tmp_path, finished)
    warmer = config.model_copy(update={"distill": config.distill.model_copy(update={"temperature": 7.0})})
    with pytest.raises(ConfigError) as caught, open_run(warmer, tmp_path):
        pass
    assert "distill.temperature: 2.0 there, 7.0 asked for" in str(caught.value) and "--again" in str(caught.value)
    assert holds_work(tmp_path) and RunFolder(tmp_path).read_config() == config


def test_again_replaces_whatever_run_is_there(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=True)
    other = config.model_copy(update={"seed": 5})
    with begun(other, tmp_path, again=True) as folder:
        assert not holds_work(tmp_path) and not folder.report.exists()
        assert folder.read_config() == other


def test_starting_over_leaves_no_student_of_the_earlier_run(config: Config, tmp_path: Path) -> None:
    leave(config, tmp_path, finished=True)
    with begun(config.model_copy(update={"seed": 5}), tmp_path, again=True) as folder:
        assert not folder.student.exists()


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_of_something_else_is_refused_and_left_alone(config: Config, tmp_path: Path, again: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match="not empty and not a run folder"), open_run(config, tmp_path, again):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_log_of_an_earlier_teach_is_no_obstacle(config: Config, tmp_path: Path) -> None:
    for name in ("log.txt", "teachers.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with open_run(config, tmp_path) as folder:
        assert folder.log.read_text(encoding="utf-8") == "{}"


def test_a_folder_that_another_process_writes_is_refused(config: Config, tmp_path: Path) -> None:
    with begun(config, tmp_path):
        code = (
            "import sys\nfrom raydistill.commands.run_folder import open_run\n"
            "from raydistill import ConfigError, load_config\n"
            "try:\n    with open_run(load_config(sys.argv[1] + '/config.yaml'), sys.argv[1]): print('opened')\n"
            "except ConfigError as error: print(error)"
        )
        result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "another process is writing" in result.stdout and str(tmp_path) in result.stdout


def test_the_lock_is_let_go_after_an_error(config: Config, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_run(config, tmp_path):
        raise RuntimeError
    with open_run(config, tmp_path):
        pass


def test_a_place_that_cannot_be_made_is_an_error_that_names_it(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot write to .*file/run"), open_run(config, tmp_path / "file" / "run"):
        pass


def test_a_folder_without_config_or_report_says_what_is_missing(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        RunFolder(tmp_path).read_report()
    leave(config, tmp_path, finished=False)
    with pytest.raises(ConfigError, match="is not finished"):
        RunFolder(tmp_path).read_report()
    (tmp_path / "report.json").write_text('{"torn', encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid JSON"):
        RunFolder(tmp_path).read_report()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "é")
    write_atomically(tmp_path / "a.txt", "ü")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ü"
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "a.txt" / "b.txt", tmp_path / "folder"):
        with pytest.raises(ConfigError, match="cannot write"):
            write_atomically(target, "x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_an_interrupted_extension_by_seeds_goes_on_and_loses_nothing(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    one, three = make_config(), make_config().model_copy(update={"num_seeds": 3})
    with begun(one, tmp_path / "run") as folder:
        folder.checkpoints.mkdir()
        (folder.checkpoints / "seed0").write_text("trained", encoding="utf-8")
        folder.report.write_text("{}", encoding="utf-8")
    for _ in range(2):  # the first call is stopped before it has a report
        with begun(three, tmp_path / "run") as folder:
            assert (folder.checkpoints / "seed0").is_file() and not folder.report.exists()


def test_a_run_goes_on_only_with_the_data_and_teachers_that_it_began_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_inputs({"the data of mood": "a", "teacher bert": "b"})
    folder.check_inputs({"the data of mood": "a", "teacher bert": "b"})
    with pytest.raises(ConfigError, match="the data of mood changed since"):
        folder.check_inputs({"the data of mood": "c", "teacher bert": "b"})
