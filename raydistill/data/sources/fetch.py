"""Packages that carry data: downloaded once into the cache, checked, unpacked; no root needed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from raydistill.errors import DataError, first_line
from raydistill.secrecy import presentable

Progress = Callable[[str], None]


def has_apt() -> bool:
    """Whether Debian packages can be fetched and unpacked here."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def debian_package(package: str, sha256: dict[str, str], cache_dir: Path, progress: Progress) -> Path:
    """The folder that a Debian package unpacks to.

    Args:
        package: its name.
        sha256: by file name of the .deb: the versions that were looked at.
        cache_dir: the package lands in `raw/PACKAGE` below it.

    Raises:
        DataError: no network, another version, a damaged download, a full disk.
    """

    def download(folder: Path) -> Path:
        result = _run(["apt-get", "download", package], folder)
        if result.returncode != 0:
            # Fresh machines have no package lists; private ones need no root.
            lists = folder / "lists"
            (lists / "partial").mkdir(parents=True)
            options = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}", "-o", "Debug::NoLocking=1"]
            progress(f"{package}: reading the package lists")
            result = _run(["apt-get", *options, "update"], folder)
            result = _run(["apt-get", *options, "download", package], folder)
        files = list(folder.glob("*.deb"))
        if result.returncode != 0 or not files:
            raise DataError(
                f"cannot fetch the Debian package {package}: {_last_line(result)}; check the network, or name "
                "another data set in tasks.*.data"
            )
        return files[0]

    def unpack(file: Path, folder: Path) -> None:
        result = _run(["dpkg-deb", "-x", str(file), str(folder)], folder)
        if result.returncode != 0:
            raise DataError(f"cannot unpack {file.name}: {_last_line(result)}")

    return _fetched(package, sha256, cache_dir, progress, download, unpack)


def python_sdist(requirement: str, sha256: dict[str, str], cache_dir: Path, progress: Progress) -> Path:
    """The folder that a Python source package (`name==version`) unpacks to. Errors as in `debian_package`."""

    def download(folder: Path) -> Path:
        # With its hash: pip runs a source package's build script, and looks at the content before it does.
        wanted = folder / "wanted.txt"
        wanted.write_text(" ".join([requirement, *(f"--hash=sha256:{value}" for value in sha256.values())]), "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-build-isolation", "--no-binary", ":all:", "--dest", str(folder), "--requirement", str(wanted)]
        result = _run(command, folder)
        other = re.search(r"Got\s+([0-9a-f]{64})", result.stderr)
        if result.returncode != 0 and other:
            raise _other_content(requirement, other[1], sha256)
        files = list(folder.glob("*.tar.gz"))
        if result.returncode != 0 or not files:
            raise DataError(
                f"cannot fetch the Python package {requirement}: {_last_line(result)}; check the network and that "
                "pip is installed, or name another data set in tasks.*.data"
            )
        return files[0]

    return _fetched(requirement, sha256, cache_dir, progress, download, unpack_tar)


def unpack_tar(file: Path, folder: Path) -> None:
    """Into the folder and nowhere else: no member, and no link of one, leads out of it.

    Raises:
        DataError: a member does, or it is no tar file. OSError: the folder cannot be written.
    """
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        why = first_line(error)
        raise DataError(f"{file.name} is not unpacked: {why}; it is damaged, or not to be trusted") from error


def _fetched(
    name: str,
    sha256: dict[str, str],
    cache_dir: Path,
    progress: Progress,
    download: Callable[[Path], Path],
    unpack: Callable[[Path, Path], None],
) -> Path:
    """Download and unpack beside the goal, then rename: what stands under the final name is whole and checked."""
    final = cache_dir / "raw" / name
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_name(f"{name}.lock")):
            if final.is_dir():
                return final
            temporary = final.with_name(f".{name}.{os.getpid()}")
            try:
                (temporary / "download").mkdir(parents=True)
                (temporary / "content").mkdir()
                progress(f"fetching {name}")
                file = download(temporary / "download")
                found = file_sha256(file)
                if found not in sha256.values():
                    raise _other_content(file.name, found, sha256)
                progress(f"unpacking {name} ({file.stat().st_size >> 20} MiB)")
                unpack(file, temporary / "content")
                (temporary / "content").replace(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot store {name} in {final.parent}: {error.strerror or error}; "
                        "free some space or set cache_dir") from error  # fmt: skip
    return final


def _other_content(name: str, found: str, sha256: dict[str, str]) -> DataError:
    expected = " or ".join(f"{value[:16]}…" for value in sha256.values())
    return DataError(
        f"{name} has SHA-256 {found[:16]}…, expected {expected}: "
        "a damaged download or another version; run again, or name another data set in tasks.*.data"
    )


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith(("W:", "N:"))]
    return presentable(lines[-1])[:200] if lines else f"exit status {result.returncode}"
