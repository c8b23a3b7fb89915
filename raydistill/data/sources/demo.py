"""The demo's three data sets, each fetched from the package that carries it; hub data sets where there is no apt."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raydistill.config.basics import Domain
from raydistill.config.data import DataConfig, TaskConfig
from raydistill.data.rows import RawData, RawRow
from raydistill.data.sources.fetch import debian_package, has_apt, python_sdist

Progress = Callable[[str], None]

FASHION = "dataset-fashion-mnist"
FASHION_SHA256 = {
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb": (
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
    )
}
FASHION_LABELS = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
STAMPS = "tuxpaint-stamps-default"
STAMPS_SHA256 = {
    "tuxpaint-stamps-default_2022.06.04-1_all.deb": ("6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34")
}
LANGUAGES = ("be", "bg", "ca", "da", "el", "es", "fr", "ro", "ru")
SENTIMENT = "vaderSentiment==3.3.2"
SENTIMENT_SHA256 = {"vaderSentiment-3.3.2.tar.gz": "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"}


def fashion_mnist(cache_dir: Path, progress: Progress) -> RawData:
    """60,000 / 10,000 grey pictures of clothes, 28×28, 10 classes (Xiao et al. 2017)."""
    if not has_apt():
        return _from_hub("fashion_mnist", "vision", "zalando-datasets/fashion_mnist", progress, input_column="image")
    folder = debian_package(FASHION, FASHION_SHA256, cache_dir, progress) / "usr/share/datasets/fashion-mnist"

    def reader(prefix: str, split: str) -> Callable[[], Iterator[RawRow]]:
        def read() -> Iterator[RawRow]:
            images = _idx(folder / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
            labels = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 8)
            for position, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield RawRow(name := f"{split} picture {position}", image, int(label), group=name)

        return read

    splits = {"train": reader("train", "train"), "test": reader("t10k", "test")}
    return RawData(splits, FASHION_LABELS, "fashion-mnist 20200523")


def sentiment(cache_dir: Path, progress: Progress) -> RawData:
    """Sentences of films, news, tweets and products with people's mean score (Hutto & Gilbert 2014).

    Scores above 1 are positive, below −1 negative; the others stay as rows without a label, for the teacher to
    speak on. The sentences of one editorial or one product review never cross splits.
    """

    def name_of(score: float) -> str | None:
        return None if abs(score) <= 1.0 else "positive" if score > 0 else "negative"

    identity = "vaderSentiment 3.3.2, abs(score) > 1"
    return RawData({"train": _scored(cache_dir, progress, name_of)}, ("negative", "positive"), identity)


def sentiment_scores(cache_dir: Path, progress: Progress) -> RawData:
    """The same sentences, each with its mean score itself, −4…4."""
    return RawData({"train": _scored(cache_dir, progress, float)}, None, "vaderSentiment 3.3.2, scores")


def _scored(cache_dir: Path, progress: Progress, label_of: Callable[[float], Any]) -> Callable[[], Iterator[RawRow]]:
    folder = python_sdist(SENTIMENT, SENTIMENT_SHA256, cache_dir, progress)
    archive_path = folder / "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"

    def read() -> Iterator[RawRow]:
        with tarfile.open(archive_path) as archive:
            for member in sorted(archive.getmembers(), key=lambda entry: entry.name):
                kind = re.fullmatch(r"hutto_ICWSM_2014/(\w+)_GroundTruth\.txt", member.name)
                content = archive.extractfile(member) if kind else None
                if not kind or content is None:
                    continue
                for line in content.read().decode("utf-8", errors="replace").splitlines():
                    identifier, score, text = line.split("\t", 2)
                    document = identifier.rsplit("_", 1)[0]
                    yield RawRow(f"{kind[1]} {identifier}", text, label_of(float(score)), f"{kind[1]}/{document}")

    return read


def spoken_language(cache_dir: Path, progress: Progress) -> RawData:
    """The name of a thing, spoken in one of nine languages; the clips of one stamp never cross splits.

    One narrator or few speak each language: what is learned is language and narrator together.
    """
    if not has_apt():
        return _from_hub(
            "spoken_language", "speech", "PolyAI/minds14", progress,
            subset="all", input_column="audio", label_column="lang_id",
        )  # fmt: skip
    folder = debian_package(STAMPS, STAMPS_SHA256, cache_dir, progress) / "usr/share/tuxpaint/stamps"

    def read() -> Iterator[RawRow]:
        seen: set[bytes] = set()
        for path in sorted(folder.rglob("*_desc_*.ogg")):
            stamp, _, language = path.stem.rpartition("_desc_")
            if language not in LANGUAGES:
                continue
            content = path.read_bytes()
            digest = hashlib.md5(content, usedforsecurity=False).digest()
            if digest in seen:
                continue
            seen.add(digest)
            group = str(path.parent.relative_to(folder) / stamp)
            yield RawRow(str(path.relative_to(folder)), content, language, group)

    return RawData({"train": read}, LANGUAGES, "tuxpaint-stamps 2022.06.04, nine languages")


def _idx(path: Path, header: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """The bytes after the header of a gzipped IDX file."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def _from_hub(name: str, domain: Domain, path: str, progress: Progress, **columns: Any) -> RawData:
    """The same kind of data from the hub, for machines without Debian packages."""
    from raydistill.data.sources.hugging_face import open_dataset

    progress(f"{name}: no apt here, reading {path} from the hub instead")
    task = TaskConfig(domain=domain, data=DataConfig(source="hub", path=path, **columns))
    return open_dataset(name, task, progress)
