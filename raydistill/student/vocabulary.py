"""The student's own words: a small tokenizer trained on the tasks' texts, and embeddings borrowed from a teacher."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from raydistill.errors import ConfigError
from raydistill.student.stems import TextStem

PAD, UNKNOWN = "[PAD]", "[UNK]"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-cased WordPiece tokenizer (Schuster & Nakajima 2012) of at most `vocab_size` entries."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)


def find_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A ready tokenizer: a folder or a hub name."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"student.tokenizer {name!r}: {reason}; use `train`, a folder or a hub name") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"student.tokenizer {name!r} has no fast tokenizer (tokenizer.json); use `train`")
    return tokenizer


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The student's tokenizer from the `tokenizer.json` in its folder."""
    return PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token=PAD, unk_token=UNKNOWN)


def borrow_embeddings(
    stem: TextStem,
    tokenizer: PreTrainedTokenizerFast,
    teacher_tokenizer: PreTrainedTokenizerBase,
    teacher_embeddings: Tensor,
) -> None:
    """Start the student's token embeddings from a teacher's.

    A student token gets the mean of the teacher's embeddings of its pieces, projected to the student's narrower
    width by the principal directions of all of them, scaled to unit variance.

    Args:
        stem: changed in place.
        tokenizer: the student's.
        teacher_tokenizer: cuts each student token into the teacher's pieces.
        teacher_embeddings: [teacher_vocab, teacher_width].
    """
    width = stem.embedding.embedding_dim
    vectors = torch.zeros(stem.embedding.num_embeddings, teacher_embeddings.shape[1])
    for token, index in tokenizer.get_vocab().items():
        # Trained on whole words, a continuation piece is closest to the same letters standing alone.
        pieces = teacher_tokenizer(token.removeprefix("##"), add_special_tokens=False)["input_ids"]
        if pieces and token not in (PAD, UNKNOWN):
            vectors[index] = teacher_embeddings[torch.tensor(pieces)].float().mean(dim=0)
    centred = vectors - vectors.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[:width].T
    if projected.shape[1] < width:
        projected = nn.functional.pad(projected, (0, width - projected.shape[1]))
    with torch.no_grad():
        stem.embedding.weight.copy_(projected / projected.std().clamp_min(1e-6))
