"""A student asked about pictures, sentences and sounds of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from raydistill.commands.students import make_student
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import ConfigError, DataError
from raydistill.student.model import Student
from raydistill.student.predicting import predict, predict_split


@pytest.fixture(scope="module")
def student(
    make_config: Callable[..., Config], tiny_data: dict[str, TaskData], tmp_path_factory: pytest.TempPathFactory
) -> Student:
    return make_student(make_config(), tiny_data, 0, tmp_path_factory.mktemp("student") / "initial").eval()


def test_texts_are_answered_with_a_label_and_its_probability(student: Student, tiny_data: dict[str, TaskData]) -> None:
    split = tiny_data["mood"].test
    logits = predict_split(student, "mood", split).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = predict(student, "mood", list(split.views(range(len(split))).inputs))
    assert [label for label, _ in answers] == [tiny.LABELS["mood"][index] for index in logits.argmax(axis=1)]
    np.testing.assert_allclose([share for _, share in answers], expected.max(axis=1), atol=1e-5)


def test_files_bytes_and_decoded_inputs_get_the_same_answer(student: Student, tiny_root: Path) -> None:
    picture = next((tiny_root / "pictures").rglob("*.png"))
    with Image.open(picture) as image:
        answers = predict(student, "bands", [picture, str(picture), picture.read_bytes(), image])
    assert len(set(answers)) == 1 and answers[0][0] in tiny.LABELS["bands"]
    sound = next((tiny_root / "sounds").rglob("*.wav"))
    heard = predict(student, "tones", [sound, sound.read_bytes()])
    assert heard[0] == heard[1] and heard[0][0] in tiny.LABELS["tones"]


def test_a_lone_text_without_any_word_is_answered_or_refused_by_name(student: Student) -> None:
    try:
        answers = predict(student, "mood", ["\u200b"])
    except DataError as error:
        assert "mood" in str(error)  # noqa: PT017 (either is right, a crash is not)
    else:
        assert 0.5 <= answers[0][1] <= 1.0


def test_what_cannot_be_read_is_named(student: Student, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        predict(student, "bands", [tmp_path / "bad.png"])
    with pytest.raises(DataError, match=r"missing\.wav"):
        predict(student, "tones", [tmp_path / "missing.wav"])
    with pytest.raises(DataError, match="empty text"):
        predict(student, "mood", ["fine", " "])


def test_a_task_that_the_student_does_not_know_is_named_with_those_it_does(student: Student) -> None:
    with pytest.raises(ConfigError, match=r"'modd'.*'mood'"):
        predict(student, "modd", ["fine"])


def test_nothing_asked_is_nothing_answered(student: Student) -> None:
    assert predict(student, "mood", []) == []
