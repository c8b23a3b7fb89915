"""Data that cannot be used ends the command in one line that names it, and leaves nothing half written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_runs import Lab, assert_nothing_half_written, assert_refused, report_of, teacher, write_digits


def refused(lab: Lab, config: dict[str, Any], *words: str) -> None:
    out, cache = lab.new("run"), lab.new("cache")
    assert_refused(lab.run("distill", lab.config(cache_dir=str(cache), **config), "--out", out), *words)
    assert_nothing_half_written(out, cache)


@pytest.fixture(scope="module")
def torn(lab: Lab) -> Path:
    """Digits of which eight pictures are cut short."""
    folder = shutil.copytree(lab.digits, lab.new("torn"))
    for picture in sorted(folder.rglob("*.png"))[:8]:
        picture.write_bytes(picture.read_bytes()[:40])
    return folder


def pictures(folder: Path, **changes: Any) -> dict[str, Any]:
    data = {"source": "imagefolder", "path": str(folder), "image_size": 8, "grayscale": True, **changes}
    return {"digits": {"domain": "vision", "data": data}}


def test_corrupt_pictures_beyond_the_limit_are_refused_by_name(lab: Lab, torn: Path) -> None:
    tasks = pictures(torn, max_bad_fraction=0.001)
    refused(lab, {"tasks": tasks}, "task 'digits'", "8 of 960 rows", ".png", "corrupt image", "max_bad_fraction")


def test_corrupt_pictures_within_the_limit_are_skipped_and_told(lab: Lab, torn: Path) -> None:
    run = lab.distilled(lab.config(tasks=pictures(torn, max_bad_fraction=0.01), cache_dir=str(lab.new("cache"))))
    assert report_of(run)["tasks"]["digits"]["num_skipped"] == 8
    told = [line for line in (run / "log.txt").read_text(encoding="utf-8").splitlines() if "skipped: digits:" in line]
    assert len(told) == 8
    assert all(".png: corrupt image" in line for line in told)


def test_corrupt_sound_beyond_the_limit_is_refused_by_name(lab: Lab) -> None:
    folder = lab.new("tones")
    for number in range(30):
        place = folder / "train" / ("low", "high")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        wave = np.sin(np.arange(1600) * (0.1, 0.5)[number % 2]).astype(np.float32)
        soundfile.write(place / f"{number}.wav", wave, 8000)
    (folder / "train" / "low" / "0.wav").write_bytes(b"RIFF and nothing after it")
    data = {"source": "audiofolder", "path": str(folder), "sample_rate": 8000}
    config = {"tasks": {"tones": {"domain": "speech", "data": data}}, "teachers": {"expert": teacher("tones")}}
    refused(lab, config, "task 'tones'", "1 of 30 rows", "0.wav", "corrupt audio", "max_bad_fraction")


def test_an_empty_split_is_refused_by_name(lab: Lab) -> None:
    file = lab.new("sentences").with_suffix(".csv")
    rows = [f"sentence number {number},{('yes', 'no')[number % 2]},one author" for number in range(20)]
    file.write_text("\n".join(["text,label,author", *rows]))
    data = {"source": "csv", "path": str(file), "group_column": "author"}
    config = {"tasks": {"agree": {"domain": "text", "data": data}}, "teachers": {"expert": teacher("agree")}}
    refused(lab, config, "task 'agree'", "split has no rows", "tasks.agree.data")


def test_a_missing_folder_is_refused_by_name(lab: Lab) -> None:
    refused(lab, {"tasks": pictures(lab.folder / "nowhere")}, "task 'digits'", "nowhere", "no such file or folder")


def test_a_missing_column_is_refused_with_those_that_there_are(lab: Lab) -> None:
    tasks = pictures(lab.digits, label_column="animal")
    refused(lab, {"tasks": tasks}, "task 'digits'", "'animal'", "label", "tasks.digits.data.label_column")


def test_new_data_with_labels_that_the_student_does_not_know_is_refused(lab: Lab) -> None:
    parity = write_digits(lab.new("parity"), lambda digit: ("even", "odd")[digit % 2])
    run = lab.distilled(lab.config())
    before = {path.name for path in run.iterdir()}
    done = lab.run("evaluate", run, f"tasks.digits.data.path={parity}")
    assert_refused(done, "task 'digits'", "even", "odd", "does not know")
    assert {path.name for path in run.iterdir()} == before
