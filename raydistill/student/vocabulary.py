"""The student's own words: a small tokenizer trained on the tasks' texts, and embeddings borrowed from a teacher."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from raydistill.errors import ConfigError
from raydistill.student.stems import TextStem

PAD, UNKNOWN = "[PAD]", "[UNK]"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-cased WordPiece tokenizer (Schuster & Nakajima 2012) of at most `vocab_size` entries.

    The same texts give the same vocabulary. The trainer alone does not: it numbers the letters that continue a word in
    the order of a hash table, and breaks ties by number. So it gets them numbered.
    """
    lines = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=True)
    letters = sorted({letter for line in lines for letter in normalizer.normalize_str(line) if not letter.isspace()})
    tokenizer = _wordpiece(normalizer, {})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, show_progress=False, min_frequency=2,
        special_tokens=[PAD, UNKNOWN, *letters, *(f"##{letter}" for letter in letters)],
    )  # fmt: skip
    tokenizer.train_from_iterator(lines, trainer)
    # Letters were special for the trainer only.
    plain = _wordpiece(normalizer, tokenizer.get_vocab())
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=PAD, unk_token=UNKNOWN)


def _wordpiece(normalizer: normalizers.Normalizer, vocab: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def find_tokenizer(name: str, key: str = "student.tokenizer") -> PreTrainedTokenizerFast:
    """A ready tokenizer: a folder or a hub name.

    Args:
        key: of the config, that names it.

    Raises:
        ConfigError: none is there.
    """
    try:
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(name)
        return tokenizer
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        other = "`train`" if key == "student.tokenizer" else "a model type"
        raise ConfigError(
            f"{key} {name!r}: {reason}; use {other}, or a folder or hub name with a tokenizer.json"
        ) from error


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
