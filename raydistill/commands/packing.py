"""What goes along with a job: its config, a search space, and modules of the user's own. All else stays at home.

The config goes resolved, so that nothing that it extends has to. Data, checkpoints, caches, runs and whatever lies
beside the config do not go: a job names them where the cluster has them.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from raydistill.commands.confidential import check_file_names, check_text, check_values
from raydistill.commands.in_job import check_whole, clusters_own
from raydistill.config.loader import dump_config
from raydistill.config.models import Config
from raydistill.errors import ConfigError

CONFIG, SPACE = "config.yaml", "space.json"
MOST_BYTES = 50 * 2**20  # of a user's modules: weights among them belong on storage
OURS = "raydistill"
NEVER = {"__pycache__", ".git", ".venv", "node_modules"}
LOOKED_AT = 8192  # bytes: a file without a NUL among them is text


@dataclass(frozen=True)
class Parcel:
    """Everything that a job has in its working directory.

    Attributes:
        texts: by file name: what is written there.
        files: by relative path: the file here that is copied there.
        elsewhere: modules that are named and not here: the cluster has to have them.
    """

    texts: dict[str, str]
    files: dict[str, Path] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Put all of it into an empty folder."""
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, source in self.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(source.read_bytes())

    @property
    def size_bytes(self) -> int:
        """Before it is compressed."""
        return sum(len(text) for text in self.texts.values()) + sum(each.stat().st_size for each in self.files.values())


def pack(config: Config, space: Mapping[str, Any] | None = None, path: Sequence[str] | None = None) -> Parcel:
    """What a distillation, or a sweep, needs beside raydistill itself.

    Args:
        config: resolved. What it says of Ray stays here: a job runs on the cluster that it was submitted to.
        space: content of a search space, for a sweep.
        path: where modules are looked for; default: `sys.path`.

    Raises:
        ConfigError: something in it is a secret, is too large, or lies where the cluster cannot see it.
    """
    config = config.model_copy(update={"ray": clusters_own(config.ray)})
    check_whole(config)
    content = config.model_dump(mode="json")
    check_values(content, "the config")
    texts = {CONFIG: dump_config(config)}
    if space is not None:
        check_values(space, "the search space")
        texts[SPACE] = json.dumps({**space, "config": CONFIG}, indent=1)
    files, elsewhere = find_modules(_named_modules(config, space), sys.path if path is None else path)
    check_file_names(files)
    parcel = Parcel(texts, files, elsewhere)
    if parcel.size_bytes > MOST_BYTES:
        largest = max(files, key=lambda name: files[name].stat().st_size)
        raise ConfigError(
            f"the modules that the config names are {parcel.size_bytes / 2**20:.0f} MB, most of it in {largest}; more "
            f"than {MOST_BYTES // 2**20} MB do not go with a job: put weights and data on storage of the cluster"
        )
    for name, source in files.items():
        held = source.read_bytes()
        if b"\0" not in held[:LOOKED_AT]:
            check_text(name, held.decode("utf-8", errors="replace"))
    return parcel


def find_modules(names: Iterable[str], path: Sequence[str]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The user's own modules among these, and those of their own that they import.

    A module goes as its file, a package with all that lies in it but what is hidden. Installed ones and Python's own
    do not go.

    Args:
        names: dotted.
        path: as `sys.path`.

    Returns:
        Files by their path within the job's folder, and the names of those that the cluster has to have: they are not
        here, or installed here and nothing that raydistill needs.

    Raises:
        ConfigError: a link leads out of a package.
    """
    places = [str(place) for each in path if not _is_installed(place := Path(each).absolute())]
    named = {name.partition(".")[0]: name for name in names}
    files: dict[str, Path] = {}
    elsewhere: list[str] = []
    waiting, seen = list(named), set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen or name == OURS:
            continue
        seen.add(name)
        spec = PathFinder.find_spec(name, places)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        found = _files_of(name, spec.origin, folders, named.get(name, name)) if spec else {}
        if not found and name in named and not _comes_with_raydistill(name):
            elsewhere.append(name)
        files |= found
        for source in found.values():
            if source.suffix == ".py":
                waiting += _imported(source)
    return files, tuple(elsewhere)


def own_package() -> Path | None:
    """The folder of raydistill, where it is a checkout that the cluster cannot know."""
    try:
        told = metadata.distribution(OURS).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        told = '{"dir_info": {"editable": true}}'  # found on the path, never installed
    editable = bool(told and json.loads(told).get("dir_info", {}).get("editable"))
    return Path(__file__).parents[1] if editable else None


def pinned_requirements(package: str = OURS) -> list[str]:
    """`name==version` of a package's requirements, and of theirs, as they are installed here; Ray is the cluster's."""
    pins: dict[str, str] = {}
    waiting, seen = [Requirement(package)], set[tuple[str, frozenset[str]]]()
    while waiting:
        wanted = waiting.pop(0)
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen or name == "ray":
            continue
        seen.add((name, extras))
        try:
            # What follows a plus is a build of one index.
            pins[name] = f"{name}=={metadata.version(name).partition('+')[0]}"
        except metadata.PackageNotFoundError:
            continue
        for each in map(Requirement, metadata.requires(name) or ()):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras or ("",)):
                waiting.append(each)
    pins.pop(package, None)
    return sorted(pins.values())


def _named_modules(config: Config, space: Mapping[str, Any] | None) -> list[str]:
    named = [each.model.partition(":")[0] for each in config.teachers.values() if each.loader == "python"]
    if space is not None and space.get("define"):
        named.append(str(space["define"]).partition(":")[0])
    return named


def _is_installed(place: Path) -> bool:
    """Whether a place of `sys.path` is Python's own or an environment's."""
    path = place.absolute()
    roots = {sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (
        path.suffix == ".zip"
        or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
        or any(path == Path(root) or Path(root) in path.parents for root in roots)
    )


def _comes_with_raydistill(module: str) -> bool:
    """Python's own, or of a package that raydistill needs: where it runs, they are."""
    if module in sys.stdlib_module_names:
        return True
    needed = {pin.partition("==")[0] for pin in pinned_requirements()} | {OURS, "ray"}
    return any(canonicalize_name(each) in needed for each in metadata.packages_distributions().get(module, ()))


def _files_of(name: str, origin: str | None, folders: list[str], whole: str) -> dict[str, Path]:
    """By their path in the job's folder.

    Args:
        whole: the dotted name that is wanted of it.
    """
    if not folders:
        return {Path(origin).name: Path(origin)} if origin and Path(origin).is_file() else {}
    root = Path(folders[0])
    if origin is None:  # any folder at all is a namespace package
        wanted = next((Path(each) for each in folders if _has_module(Path(each), whole.split(".")[1:])), None)
        if wanted is None:
            return {}
        root = wanted
    found = {}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if not path.is_file() or not NEVER.isdisjoint(parts) or any(part.startswith(".") for part in parts):
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                f"{path} is a link to {path.resolve()}, out of the package that would go with the job; put the file "
                "itself there, or take the link away"
            )
        found[str(Path(name, *parts))] = path
    return found


def _has_module(folder: Path, parts: list[str]) -> bool:
    if not parts:
        return any(folder.glob("*.py"))
    place = folder.joinpath(*parts)
    return place.with_name(f"{place.name}.py").is_file() or any(place.glob("*.py"))


def _imported(source: Path) -> list[str]:
    """First parts of what a file imports by name; what is relative lies in its package."""
    try:
        tree = ast.parse(source.read_text(encoding="utf-8", errors="replace"))
    except SyntaxError:
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module.partition(".")[0])
    return found
