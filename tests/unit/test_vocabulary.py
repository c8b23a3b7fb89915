"""The student's own words, and embeddings borrowed from a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch

from raydistill.commands.students import make_student, student_tokenizer
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import ConfigError
from raydistill.student.model import Student
from raydistill.student.stems import TextStem
from raydistill.student.vocabulary import borrow_embeddings, find_tokenizer, train_tokenizer

MakeConfig = Callable[..., Config]
TEXTS = [text for text, _ in tiny.texts(60)]


def test_trained_tokenizer_knows_the_words_of_its_texts_and_no_capital_letters() -> None:
    tokenizer = train_tokenizer(TEXTS, 200)
    assert len(tokenizer) <= 200
    assert tokenizer.tokenize("The FILM was") == ["the", "film", "was"]
    assert tokenizer.decode(tokenizer(TEXTS[0])["input_ids"]) == TEXTS[0]
    assert tokenizer.tokenize("ж") == ["[UNK]"]


def test_training_a_tokenizer_twice_gives_the_same_one() -> None:
    assert train_tokenizer(TEXTS, 150).get_vocab() == train_tokenizer(TEXTS, 150).get_vocab()


def test_tokenizer_of_a_student_learns_from_training_rows_only(
    make_config: MakeConfig, tiny_data: dict[str, TaskData]
) -> None:
    assert student_tokenizer(make_config(("bands",)), {"bands": tiny_data["bands"]}) is None
    found = student_tokenizer(make_config(("mood",)), {"mood": tiny_data["mood"]})
    rows = tiny_data["mood"].train.views(range(len(tiny_data["mood"].train))).inputs
    assert found is not None
    assert found.get_vocab() == train_tokenizer((str(text) for text in rows), 200).get_vocab()


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"student\.tokenizer .*nowhere"):
        find_tokenizer(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("pad", ["[PAD]", "<pad>"])
def test_a_ready_tokenizer_travels_with_the_student(
    make_config: MakeConfig, tiny_data: dict[str, TaskData], tmp_path: Path, pad: str
) -> None:
    tiny.word_tokenizer(pad=pad).save_pretrained(tmp_path / "words")
    config = make_config(("mood",), student={**tiny.STUDENT, "tokenizer": str(tmp_path / "words")})
    student = make_student(config, {"mood": tiny_data["mood"]}, 0, tmp_path / "student").eval()
    loaded = Student.from_pretrained(str(tmp_path / "student")).eval()
    views = tiny_data["mood"].train.views(range(6))
    prepared, again = student.preparer("mood")(views), loaded.preparer("mood")(views)
    assert (prepared["attention_mask"] == 0).any()
    assert all(torch.equal(again[key], prepared[key]) for key in prepared)
    assert torch.equal(loaded({"mood": again})["mood"], student({"mood": prepared})["mood"])


@pytest.mark.parametrize(("teacher_width", "width"), [(24, 8), (24, 24), (6, 16)])
def test_borrowed_embeddings_have_the_students_width_and_unit_scale(teacher_width: int, width: int) -> None:
    tokenizer, teacher_tokenizer = train_tokenizer(TEXTS, 200), tiny.word_tokenizer()
    torch.manual_seed(0)
    stem = TextStem(len(tokenizer), width, 32)
    before = stem.embedding.weight.detach().clone()
    borrow_embeddings(stem, tokenizer, teacher_tokenizer, torch.randn(len(teacher_tokenizer), teacher_width) * 7)
    weight = stem.embedding.weight.detach()
    assert weight.shape == before.shape and torch.isfinite(weight).all()
    assert not torch.equal(weight, before) and stem.embedding.weight.requires_grad
    assert weight.std().item() == pytest.approx(1.0, abs=0.05)


def test_words_that_are_near_for_the_teacher_are_near_for_the_student() -> None:
    tokenizer, teacher_tokenizer = train_tokenizer(TEXTS, 200), tiny.word_tokenizer()
    torch.manual_seed(0)
    embeddings = torch.randn(len(teacher_tokenizer), 24)
    words = teacher_tokenizer.get_vocab()
    embeddings[words["lovely"]] = embeddings[words["splendid"]] + 0.01 * torch.randn(24)
    stem = TextStem(len(tokenizer), 16, 32)
    borrow_embeddings(stem, tokenizer, teacher_tokenizer, embeddings)
    own = {word: stem.embedding.weight.detach()[tokenizer.get_vocab()[word]] for word in ("lovely", "splendid", "dull")}
    assert torch.dist(own["lovely"], own["splendid"]) < 0.2 * torch.dist(own["lovely"], own["dull"])


def test_a_student_may_start_from_a_text_teachers_embeddings(
    make_config: MakeConfig, tiny_data: dict[str, TaskData], tmp_path: Path
) -> None:
    teachers = {"bert": tiny.teacher_section("mood", tiny.save_transformers("mood", tmp_path / "bert"))}
    data = {"mood": tiny_data["mood"]}
    students = {
        lender: make_student(
            make_config(("mood",), teachers=teachers, student={**tiny.STUDENT, "embeddings_from": lender}),
            data, 0, tmp_path / str(lender),
        )
        for lender in (None, "bert")
    }  # fmt: skip
    plain, lent = (students[lender].state_dict() for lender in (None, "bert"))
    changed = [key for key in plain if not torch.equal(plain[key], lent[key])]
    assert changed == ["stems.text.embedding.weight"]


def test_embeddings_of_a_teacher_that_reads_nothing_are_refused(
    make_config: MakeConfig, tiny_data: dict[str, TaskData], tmp_path: Path
) -> None:
    teachers = {"vit": tiny.teacher_section("bands", tiny.save_transformers("bands", tmp_path / "vit"))}
    config = make_config(("bands", "mood"), teachers=teachers, student={**tiny.STUDENT, "embeddings_from": "vit"})
    with pytest.raises(ConfigError, match=r"embeddings_from: teacher 'vit' has no token embeddings"):
        make_student(config, {name: tiny_data[name] for name in ("bands", "mood")}, 0, tmp_path / "student")
