"""Tiny, learnable data of every domain, and tiny teachers: seconds are for tests, not for set-up."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TASKS = {"bands": "vision", "mood": "text", "tones": "speech"}
LABELS = {"bands": ("bottom", "middle", "top"), "mood": ("bad", "good"), "tones": ("high", "low", "mid")}
STUDENT = {
    "size": "tiny", "width": 32, "depth": 1, "num_heads": 2, "vocab_size": 200, "embedding_width": 16,
    "num_mels": 16, "max_length": 16,
}  # fmt: skip
GOOD, BAD = ("fine", "lovely", "bright", "splendid"), ("poor", "dreadful", "dull", "broken")
COMMON = ("the", "film", "was", "a", "day", "and", "thing", "very")
RATE = 8_000


def picture(label: str, generator: np.random.Generator, size: int = 16) -> np.ndarray:
    """uint8 [size, size, 3]: noise with a bright band."""
    pixels = generator.integers(0, 90, (size, size, 3))
    start = ("top", "middle", "bottom").index(label) * size // 3
    pixels[start : start + size // 3] += 150
    return pixels.astype(np.uint8)


def write_pictures(folder: Path, each: int = 16) -> None:
    generator = np.random.default_rng(0)
    for label in LABELS["bands"]:
        (folder / label).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(picture(label, generator)).save(folder / label / f"{number:02}.png")


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) rows of unlike lengths, no two alike."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = ("bad", "good")[number % 2]
        words = [*generator.choice(COMMON, generator.integers(1, 8)), *generator.choice(GOOD if number % 2 else BAD, 2)]
        rows.append((f"{' '.join(generator.permutation(words))} {number}", label))
    return rows


def write_texts(path: Path, count: int = 60) -> None:
    write_csv(path, ("text", "label"), texts(count))


def write_csv(path: Path, heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heads, *rows])


def tone(label: str, seconds: float, generator: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """float32 [num_samples]: a noisy tone."""
    pitch = {"low": 250.0, "mid": 700.0, "high": 1900.0}[label]
    moments = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * pitch * moments) + generator.normal(0, 0.02, len(moments))).astype(np.float32)


def write_sounds(folder: Path, each: int = 12) -> None:
    generator = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = []
    for label in LABELS["tones"]:
        (folder / label).mkdir(parents=True)
        for number in range(each):
            wave = tone(label, generator.uniform(0.12, 0.3), generator)
            rows.append((f"{label}/{number:02}.wav", label))
            soundfile.write(folder / rows[-1][0], wave, RATE)
    write_csv(folder / "sounds.csv", ("audio", "label"), rows)


def task_section(name: str, root: Path) -> dict[str, Any]:
    data: dict[str, Any] = {
        "bands": {"source": "imagefolder", "path": str(root / "pictures"), "image_size": 16},
        "mood": {"source": "csv", "path": str(root / "texts.csv")},
        "tones": {"source": "csv", "path": str(root / "sounds/sounds.csv"), "sample_rate": RATE, "max_seconds": 0.3},
    }[name]
    return {"domain": TASKS[name], "data": {**data, "validation_fraction": 0.2, "test_fraction": 0.2}}


def word_tokenizer(lowercase: bool = True, pad: str = "[PAD]", extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Whole words only; not the student's kind of tokenizer."""
    words = [pad, "[UNK]", *COMMON, *GOOD, *BAD, *(str(number) for number in range(60)), *extra]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, unk_token="[UNK]")


def save_transformers(
    task: str, folder: Path, seed: int = 0, labels: tuple[str, ...] | None = None, legacy_names: bool = False
) -> Path:
    """A random tiny teacher of a task; its last layer is large enough for its answers to differ.

    `save_pretrained` writes some architectures' weights under the names of older versions (`legacy_names`);
    raydistill's own checkpoints have the module's.
    """
    import transformers

    names = labels or LABELS[task]
    common = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)},
    }  # fmt: skip
    torch.manual_seed(seed)
    if task == "bands":
        settings: Any = transformers.ViTConfig(**common, image_size=16, patch_size=8)
        model: Any = transformers.ViTForImageClassification(settings)
    elif task == "mood":
        tokenizer = word_tokenizer()
        settings = transformers.BertConfig(**common, vocab_size=len(tokenizer), max_position_embeddings=32)
        model = transformers.BertForSequenceClassification(settings)
        tokenizer.save_pretrained(folder)
    else:
        settings = transformers.Wav2Vec2Config(**common, **WAV2VEC2)
        model = transformers.Wav2Vec2ForSequenceClassification(settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("classifier"):
                weight.normal_(0, 1)
    model.save_pretrained(folder)
    if not legacy_names:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder


WAV2VEC2 = {
    "conv_dim": [16, 16], "conv_kernel": [10, 8], "conv_stride": [5, 4], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16,
    "mask_time_prob": 0.0, "layerdrop": 0.0, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip


def teacher_section(task: str, folder: Path, **more: Any) -> dict[str, Any]:
    return {"task": task, "loader": "transformers", "model": str(folder), "checkpoint": str(folder),
            "precision": "fp32", **more}  # fmt: skip
