"""Sentences with several tags or none, and with numbers; a part of the rows has no label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny

TAGS = ("blame", "film", "praise")


def sentence(generator: np.random.Generator) -> tuple[str, list[str], float]:
    """Words, the tags that hold, and how much better than bad it is, around 50."""
    good, bad = int(generator.integers(0, 3)), int(generator.integers(0, 3))
    words = [*generator.choice(tiny.GOOD, good), *generator.choice(tiny.BAD, bad)]
    words += [*generator.choice(tiny.COMMON[:1] + tiny.COMMON[2:], 3)]
    if about_film := bool(generator.integers(0, 2)):
        words.append("film")
    tags = [tag for tag, holds in zip(TAGS, (bad > 0, about_film, good > 0), strict=True) if holds]
    return " ".join(generator.permutation(words)), tags, 50.0 + 10.0 * (good - bad)


def write_sentences(path: Path, count: int = 300, unlabelled: int = 3) -> None:
    """JSON lines: text, tags (null: unlabelled, []: none holds), score and number of words; every `unlabelled`-th row
    has neither."""
    generator = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text, tags, score = sentence(generator)
            known = bool(number % unlabelled)
            row = {
                "text": f"{text} {number + 100}", "tags": tags if known else None, "score": score if known else None,
                "words": len(text.split()) if known and number % 5 else None,
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def sections(path: Path) -> dict[str, Any]:
    """The two tasks of a config."""
    data = {"source": "json", "path": str(path), "validation_fraction": 0.2, "test_fraction": 0.2}
    return {
        "tags": {"kind": "multilabel", "domain": "text", "data": {**data, "label_column": "tags"}},
        "score": {"kind": "regression", "domain": "text", "data": {**data, "label_columns": ["score", "words"]}},
    }


def teacher(task: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Trained in a second."""
    train = {
        "num_epochs": 20,
        "batch_size": 16,
        "learning_rate": 0.05,
        "precision": "fp32",
        "seed": seed,
        "patience": 9,
    }
    return {
        "task": task,
        "loader": "python",
        "model": "own_teachers:words",
        "precision": "fp32",
        "train": train,
        **changes,
    }
