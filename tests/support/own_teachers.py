"""Teachers of one's own, as a config names them: `own_teachers:pixels`."""

from __future__ import annotations

import tiny
import torch
from torch import Tensor, nn

from raydistill.data.preparing import TextPreparer
from raydistill.teachers.models import Network


class Pixels(nn.Module):
    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(3 * 8 * 8)
        self.linear = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.linear(
            self.dropout(self.norm(nn.functional.adaptive_avg_pool2d(pixel_values, 8).flatten(1)))
        )
        return logits


class Tied(nn.Module):
    """Two layers, one matrix: as language models tie their embeddings."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(3, num_classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(pixel_values.mean(dim=(2, 3)))))
        return logits


class Words(nn.Module):
    def __init__(self, num_words: int, num_classes: int) -> None:
        super().__init__()
        self.bag = nn.Embedding(num_words, num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = (self.bag(input_ids) * attention_mask.unsqueeze(-1)).sum(dim=1)
        return logits


class Loudness(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2, num_classes)

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        length = attention_mask.sum(dim=1, keepdim=True).float()
        logits: Tensor = self.linear(torch.cat([length, input_values.abs().sum(dim=1, keepdim=True) / length], dim=1))
        return logits


def pixels(num_classes: int, dropout: float = 0.0) -> nn.Module:
    return Pixels(num_classes, dropout)


def tied(num_classes: int) -> nn.Module:
    return Tied(num_classes)


def loudness(num_classes: int) -> nn.Module:
    return Loudness(num_classes)


def words(num_classes: int, lowercase: bool = True) -> Network:
    tokenizer = tiny.word_tokenizer(lowercase)
    return Network(Words(len(tokenizer), num_classes), TextPreparer(tokenizer, 16))


def bare_words(num_classes: int) -> nn.Module:
    return Words(10, num_classes)
