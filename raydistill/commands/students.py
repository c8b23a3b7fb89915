"""The student before its first step: shape, tokenizer, initial weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from raydistill.atomic import reason, replacing
from raydistill.commands.preparing import with_scales
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.data.preparing import TextPreparer
from raydistill.errors import ConfigError
from raydistill.evaluation.card import model_card
from raydistill.networks import is_model_type, resolve_model
from raydistill.student.classifiers import load_pretrained
from raydistill.student.model import Student
from raydistill.student.shape import student_shape
from raydistill.student.stems import TextStem
from raydistill.student.trunks.transformers import EncoderTrunk
from raydistill.student.vocabulary import borrow_embeddings, find_tokenizer, train_tokenizer
from raydistill.teachers.models import Network
from raydistill.teachers.teacher import build_teacher, load_teacher
from raydistill.training.features import hear_layer


def make_student(config: Config, data: dict[str, TaskData], seed: int, folder: Path) -> Student:
    """The student that both arms of a seed start from, saved to `folder`.

    Its weights are drawn by seed, or an encoder's are pretrained; its tokenizer is trained on the training texts, or
    found; its token embeddings and its layers may be borrowed from a teacher.

    Raises:
        ConfigError: the shape does not fit together, the tokenizer, pretrained weights or a lender do not exist, or
            the lender's layers do not fit.
    """
    config = with_scales(config, data)
    student = _build(config, data, seed)

    def lend(teacher: str) -> Network:
        return load_teacher(config, teacher, data[config.teachers[teacher].task].label_names).network

    _begin_with(config, student, lend)
    _save(student, folder)
    return student


def check_student(config: Config, data: dict[str, TaskData]) -> None:
    """Build the student once and look for the layers that are to learn: a mistake is told before any teacher is taught.

    Raises:
        ConfigError: as `make_student`, and where a layer of a feature loss is not there.
    """
    student = _build(config, data, config.seed)

    def lend(teacher: str) -> Network:
        return build_teacher(config, teacher, data[config.teachers[teacher].task].label_names)

    _begin_with(config, student, lend)
    for name, feature in config.distill.features.items():
        task = config.teachers[feature.teacher].task
        hear_layer(name, feature, student, task, data[task].train.views(range(2)))


def _build(config: Config, data: dict[str, TaskData], seed: int) -> Student:
    """Its weights drawn, nothing borrowed yet."""
    tokenizer = student_tokenizer(config, data)
    shape = student_shape(
        config,
        {name: task.label_names for name, task in data.items()},
        len(tokenizer) if tokenizer else 0,
        (tokenizer.pad_token_id or 0) if tokenizer else 0,
    )
    torch.manual_seed(seed)
    student = Student(shape.to_json())
    student.tokenizer = tokenizer
    for name, task in data.items():
        if task.scales is not None:
            student.units_of(name).keep(task.scales)
    return student


def save_student(student: Student, folder: Path, report: dict[str, Any]) -> None:
    """Write the finished student with its model card; the folder appears whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    _save(student, folder, model_card(report))


def _save(student: Student, folder: Path, card: str | None = None) -> None:
    try:
        with replacing(folder) as temporary:
            student.save_pretrained(temporary)
            if card is not None:
                (temporary / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write the student to {folder} ({reason(error)}); free some space or choose another --out"
        ) from error


def student_tokenizer(config: Config, data: dict[str, TaskData]) -> PreTrainedTokenizerFast | None:
    """None without a text task."""
    tasks = [task for task in data.values() if task.domain == "text"]
    if not tasks:
        return None
    classifier = config.student.classifier
    if classifier is not None and not is_model_type(classifier.model):
        # It was pretrained on these very words.
        return find_tokenizer(resolve_model(classifier.model), "student.classifier.model")
    if config.student.tokenizer != "train":
        return find_tokenizer(config.student.tokenizer)

    def texts() -> Iterator[str]:
        for task in tasks:
            for text in task.train.views(np.arange(len(task.train))).inputs:
                assert isinstance(text, str)
                yield text

    return train_tokenizer(texts(), config.student.vocab_size)


def _begin_with(config: Config, student: Student, lend: Callable[[str], Network]) -> None:
    """Weights that the config names: pretrained ones, and those of teachers.

    Args:
        lend: the network of a teacher.
    """
    if config.student.classifier is not None:
        (task,) = student.shape.tasks.values()
        load_pretrained(student.classifier, config.student.classifier, task)
    elif isinstance(student.trunk, EncoderTrunk):
        student.trunk.check(student.shape.longest)
        if not is_model_type(config.student.encoder.model):
            student.trunk.load_pretrained(config.student.encoder.model)
    lender = config.student.layers_from
    if lender is not None:
        assert isinstance(student.trunk, EncoderTrunk)
        student.trunk.copy_layers(lend(lender).module, lender)
    lender = config.student.embeddings_from
    if lender is not None and student.tokenizer is not None:
        _borrow_embeddings(student, lend(lender), lender)


def _borrow_embeddings(student: Student, network: Network, lender: str) -> None:
    assert student.tokenizer is not None
    find = getattr(network.module, "get_input_embeddings", None)
    if find is None or not isinstance(network.prepare, TextPreparer):
        raise ConfigError(
            f"student.embeddings_from: teacher {lender!r} has no token embeddings; name a text teacher of loader "
            "transformers, or leave it out"
        )
    stem = student.stems["text"]
    assert isinstance(stem, TextStem)
    borrow_embeddings(stem, student.tokenizer, network.prepare.tokenizer, find().weight.detach().cpu())
