"""What commands start with: a complete config, a cache, and progress that the user and the log can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydistill.commands.cluster import needs_ray
from raydistill.commands.preparing import as_config, cache_folder, load_data
from raydistill.commands.progress import Progress
from raydistill.config.loader import check_complete
from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError
from raydistill.precision import autocast, cpu_has_bf16, use_bf16
from raydistill.teachers.pool.placement import placement_options
from raydistill.teachers.side_by_side import placements

MakeConfig = Callable[..., Config]
TEACHER = {"task": "mood", "loader": "transformers", "model": "bert"}


def test_a_config_object_takes_overrides_like_a_file(make_config: MakeConfig) -> None:
    config = make_config(("mood",), teachers={"bert": TEACHER})
    assert as_config(config) == config
    assert as_config(config, ["distill.temperature=9"]).distill.temperature == 9


def test_tasks_without_teacher_are_named(make_config: MakeConfig) -> None:
    config = make_config(("mood", "bands"), teachers={"bert": TEACHER})
    with pytest.raises(ConfigError, match=r"task 'bands' without a teacher.*\['mood'\]"):
        check_complete(config)
    check_complete(make_config(("mood",), teachers={"bert": TEACHER}))


def test_a_cache_that_cannot_be_made_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cache_dir .*file/cache cannot be made"):
        cache_folder(make_config(("mood",), cache_dir=str(tmp_path / "file" / "cache")))


def test_data_is_told_in_a_line_and_skipped_rows_in_the_log(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["text,label", *(f"word {number},{'ab'[number % 2]}" for number in range(30)), ",a"]
    (tmp_path / "texts.csv").write_text("\n".join(lines), encoding="utf-8")
    section = {
        "domain": "text",
        "data": {"source": "csv", "path": str(tmp_path / "texts.csv"), "max_bad_fraction": 0.1},
    }
    config = make_config(tasks={"mood": section}, cache_dir=str(tmp_path / "cache"))
    with Progress(tmp_path / "log.txt") as progress:
        load_data(config, progress)
    shown, log = capsys.readouterr().err, (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "data: mood: 24 train, 3 validation, 3 test rows, 2 classes, 1 rows skipped" in shown
    assert "train row 30: empty text" in log and "train row 30" not in shown


def test_progress_keeps_lines_and_events_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(tmp_path / "deep" / "log.txt") as progress:
        progress.say("phase one")
        progress("passing")
        progress.event("a teacher was lost")
        progress.note("for the log")
    log = (tmp_path / "deep" / "log.txt").read_text(encoding="utf-8")
    shown = capsys.readouterr().err
    for text in ("phase one", "a teacher was lost"):
        assert text in log and text in shown
    assert "for the log" in log and "for the log" not in shown
    assert [event["what"] for event in progress.events] == ["a teacher was lost"]
    assert progress.events[0]["at_s"] >= 0
    with Progress(tmp_path / "deep" / "log.txt") as again:
        again.note("a second run")
    assert "phase one" in (tmp_path / "deep" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("soft_labels", "num_workers", "wanted"),
    [("local", 0, False), ("local", 1, True), ("remote", 0, True), ("stored", 0, True)],
)
def test_ray_is_needed_for_what_is_remote_only(
    make_config: MakeConfig, soft_labels: str, num_workers: int, wanted: bool
) -> None:
    config = make_config(distill={"soft_labels": soft_labels}, training={"num_workers": num_workers})
    assert needs_ray(config) is wanted


def test_placement_becomes_what_ray_is_asked_for() -> None:
    plain = placement_options(PlacementConfig(num_cpus=0.5))
    assert plain == {"num_cpus": 0.5, "num_gpus": 0.0, "resources": {}}
    special = PlacementConfig(num_gpus=1, resources={"fast": 2}, label_selector={"zone": "a"}, accelerator_type="A100")
    asked = placement_options(special)
    assert (asked["num_gpus"], asked["resources"], asked["label_selector"], asked["accelerator_type"]) == (
        1, {"fast": 2}, {"zone": "a"}, "A100",
    )  # fmt: skip


@pytest.mark.parametrize(("num_cpus", "share"), [(1, 1), (2, 2), (4, 2), (9, 3), (64, 21)])
def test_teachers_that_train_side_by_side_share_the_cores(make_config: MakeConfig, num_cpus: int, share: int) -> None:
    own = {"num_cpus": 5.0}
    sections = {name: {**TEACHER, "train": {}} for name in "ab"}
    sections["c"] = {**TEACHER, "train": {"placement": own}}
    placed = placements(make_config(("mood",), teachers=sections), ["a", "b", "c"], num_cpus, 0)
    assert placed["a"].num_cpus == placed["b"].num_cpus == share
    assert placed["c"] == PlacementConfig(**own)
    assert placements(make_config(("mood",), teachers=sections), ["a"], num_cpus, 2)["a"].num_gpus == 1


def test_stated_precision_is_obeyed_and_automatic_means_the_hardwares() -> None:
    device = torch.device("cpu")
    assert use_bf16("bf16", device) and not use_bf16("fp32", device)
    assert use_bf16("auto", device) is cpu_has_bf16()
    left, right = torch.randn(2, 4, 4)
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with autocast(device, bf16):
            assert (left @ right).dtype == dtype


def test_relative_places_become_absolute_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"source": "csv", "path": "rows.csv"}
    teacher = {"task": "it", "loader": "torchvision", "model": "resnet18", "checkpoint": "weights.safetensors"}
    tasks = {"it": {"domain": "text", "data": data}}
    config = as_config({"name": "x", "cache_dir": "cache", "tasks": tasks, "teachers": {"t": teacher}})
    assert config.tasks["it"].data.path == str(tmp_path / "rows.csv")
    assert config.teachers["t"].checkpoint == str(tmp_path / "weights.safetensors")
    assert config.cache_dir == str(tmp_path / "cache")
    assert as_config(config) == config
