"""A working copy: a folder at a URL, and the one here that a command works in.

What is whole at the URL stands in `manifest.json` there, which is written last, with the name of the copy that wrote
it. A copy that finds its own name there goes on with what it has, which is at least as new; any other one becomes what
the manifest says. What the manifest does not name was never finished, and does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from raydistill.atomic import reason, replacing
from raydistill.errors import RemoteError
from raydistill.remote.files import Remote, is_inside
from raydistill.remote.outbox import Outbox, Stamp

LARGEST = 2**63  # of nanoseconds, and of bytes
MANIFEST, NAME = "manifest.json", ".copy.json"


class WorkingCopy(Outbox):
    """See the module.

    Args:
        folder: here; has to be there, and ours alone.
        remote, skips: as of an outbox.

    Raises:
        RemoteError: the folder cannot be written.
    """

    def __init__(self, folder: Path, remote: Remote, skips: Callable[[str], bool] = lambda name: False) -> None:
        super().__init__(folder, remote, skips)
        self.name = self._own_name()
        self._told = False  # the URL has our name

    def take(self, adopt: Collection[str] = ()) -> None:
        """Become what is at the URL, unless this copy is what was there last.

        Args:
            adopt: files that count where the URL has no manifest, as when a folder was copied there by hand.

        Raises:
            RemoteError: the URL, or the folder, cannot be used.
        """
        there = self._manifest()
        self._told = False
        if there is not None and there["name"] == self.name:
            self.sent, self._told = there["files"], True
            return
        files: Mapping[str, Stamp | None] = there["files"] if there is not None else dict.fromkeys(adopt)
        try:
            self.sent = {}
            for name, here in self.here().items():
                if files.get(name) != here:
                    (self.folder / name).unlink()
            for name, stamp in files.items():
                if not self._skips(name):
                    self._fetch(name, stamp)
        except OSError as error:
            raise RemoteError(
                f"cannot write to {self.folder} ({reason(error)}), where {self.remote.key} {self.remote.url} is worked "
                "on; free some space, or set cache_dir"
            ) from error
        remove_empty_folders(self.folder)

    def send(self) -> bool:
        """Copy what has changed, and take away what is gone: what goes leaves the manifest first, what comes enters
        it last."""
        with self._turn:
            here = self.here()
            gone = [name for name in self.sent if name not in here]
            if gone:
                self.sent = {name: stamp for name, stamp in self.sent.items() if name in here}
                self._write_manifest()
                for name in gone:
                    self.remote.remove(*name.split("/"))
            if super().send() or gone or not self._told:
                self._write_manifest()
                self._told = True
                return True
            return False

    def _fetch(self, name: str, stamp: Stamp | None) -> None:
        target = self.folder / name
        if stamp is None or not target.exists():
            try:
                self.remote.fetch(target, *name.split("/"))
            except FileNotFoundError:
                return  # on its way out when the copying was cut off
            if stamp is not None:
                os.utime(target, ns=(stamp[1], stamp[1]))
        status = target.stat()
        self.sent[name] = stamp or (status.st_size, status.st_mtime_ns)

    def _manifest(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self.remote.read(MANIFEST))
            files = {str(name): (int(size), int(changed)) for name, (size, changed) in content["files"].items()}
            if not all(0 <= number < LARGEST for stamp in files.values() for number in stamp):
                raise ValueError("no size or time is so large")
            return {"name": str(content["copy"]), "files": {name: files[name] for name in files if is_inside(name)}}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise RemoteError(
                f"{self.remote.key} {self.remote.url}/{MANIFEST} is damaged; remove it, and what lies beside it is "
                "taken as it is"
            ) from error

    def _write_manifest(self) -> None:
        content = {"copy": self.name, "files": dict(sorted(self.sent.items()))}
        self.remote.write(json.dumps(content, indent=1).encode(), MANIFEST)

    def _own_name(self) -> str:
        """It lies in the folder, and so belongs to what else lies there."""
        path = self.folder / NAME
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return str(json.loads(path.read_text(encoding="utf-8"))["copy"])
        name = uuid.uuid4().hex
        try:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps({"copy": name, "url": self.remote.url}), encoding="utf-8")
        except OSError as error:
            raise RemoteError(f"cannot write to {self.folder} ({reason(error)}); set cache_dir") from error
        return name


def remove_empty_folders(folder: Path) -> None:
    """Below the folder: what looks at whether one is there means its content."""
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()


def folder_of(root: Path, url: str) -> Path:
    """Where here the folder at a URL is worked on."""
    last = "".join(each if each.isalnum() or each in "._-" else "-" for each in url.rstrip("/").rsplit("/", 1)[-1])
    return root / f"{last[:40].lstrip('.') or 'run'}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]}"
