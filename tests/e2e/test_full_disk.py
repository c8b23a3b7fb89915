"""No room to write: one line that says where, nothing torn left behind, and the same command goes on once there is.

The limit is one on the size of files (RLIMIT_FSIZE), which works without root; the errors are a full disk's.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from small_runs import Finished, Lab, assert_refused, write_digits


class Story:
    """One command, tried again with more room each time."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.out, self.cache = lab, lab.new("run"), lab.new("cache")
        # A validation split whose soft labels are larger than a config.
        digits = write_digits(
            lab.new("digits"),
            parts={"train": range(300), "validation": range(300, 1500), "test": range(1500, 1700)},
        )
        data = {"source": "imagefolder", "path": str(digits), "image_size": 8, "grayscale": True}
        self.config = lab.config(cache_dir=str(self.cache), tasks={"digits": {"domain": "vision", "data": data}})
        # `datasets` keeps its own index of the pictures elsewhere; it is not what is tested here.
        other = lab.config(cache_dir=str(lab.new("cache")), tasks={"digits": {"domain": "vision", "data": data}})
        assert lab.run("teach", other, "--out", lab.new("run")).code == 0

    def run(self, kilobytes: int, command: str = "distill") -> Finished:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, kilobytes * 1000))

        return self.lab.run(command, self.config, "--out", self.out, preexec_fn=limit if kilobytes else None)

    def hidden(self) -> list[Path]:
        """Files and folders of an unfinished writing."""
        return [path for place in (self.out, self.cache) for path in place.rglob(".*")]


@pytest.fixture(scope="module")
def story(lab: Lab) -> Story:
    return Story(lab)


def test_prepared_data_without_room_is_told(story: Story) -> None:
    assert_refused(story.run(20), "prepared data", str(story.cache), "free some space")
    assert story.hidden() == []


def test_a_teacher_without_room_is_told(story: Story) -> None:
    assert_refused(story.run(100), "teacher", str(story.cache), "free some space")
    assert story.hidden() == []


def test_soft_labels_without_room_are_told(story: Story) -> None:
    assert story.run(0, "teach").code == 0
    assert_refused(story.run(12), "soft labels", str(story.cache), "free some space")
    assert story.hidden() == []


def test_an_initial_student_without_room_is_told(story: Story) -> None:
    assert_refused(story.run(150), "student", str(story.out), "free some space")
    assert story.hidden() == []


def test_a_checkpoint_without_room_is_told(story: Story) -> None:
    assert_refused(story.run(500), "checkpoint", str(story.out / "checkpoints"), "free some space")
    assert story.hidden() == []


def test_the_same_command_goes_on_once_there_is_room(story: Story) -> None:
    done = story.run(0)
    assert done.code == 0, done.stderr
    assert (story.out / "report.json").is_file()


def test_a_log_on_a_full_disk_is_told(lab: Lab) -> None:
    out = lab.new("run")
    out.mkdir()
    (out / "log.txt").symlink_to("/dev/full")
    assert_refused(lab.run("distill", lab.config(), "--out", out), "No space left", "free some space")
