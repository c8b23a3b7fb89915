"""A script: writes to every place that a run uses, connects to Ray, and does the same on every node.

Ray gets its functions by value, since they are those of a script: a node without raydistill can say so. In a process of
its own, because a connection that fails may take its process with it. Nothing is judged here.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

DRIVER = "driver"
MARK = ".raydistill-doctor"
TRIES, PAUSE_S = 6, 0.5  # a network file system may show a new file a little late
CLOCK_READINGS = 3


def said(error: BaseException) -> str:
    """Kind and first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def resolved(place: str) -> str:
    """On this machine, where `~` may be another folder than elsewhere."""
    place = place.removeprefix("file://")
    return place.rstrip("/") if "://" in place else str(Path(place).expanduser().absolute())


def opened(path: str, mode: str) -> Any:
    """A file, or what lies at a URL."""
    if "://" in path:
        import fsspec

        return fsspec.open(path, mode).open()
    return Path(path).open(mode)


def write_word(place: str, writer: str, word: str, make: bool = False) -> dict[str, Any]:
    """Leave this writer's word in a place.

    Args:
        make: the folder, where it is not there.

    Returns:
        `path`, `made` (folders), `error` (empty: it is written).
    """
    path = resolved(place)
    about: dict[str, Any] = {"path": path, "made": [], "error": ""}
    try:
        if make and "://" not in path:
            about["made"] = [str(folder) for folder in (Path(path), *Path(path).parents) if not folder.exists()]
            Path(path).mkdir(parents=True, exist_ok=True)
        with opened(f"{path}/{MARK}-{word}-{writer}", "wb") as file:
            file.write(f"{word} {writer}".encode())
    except Exception as error:  # noqa: BLE001 (each kind of storage has its own)
        about["error"] = said(error)
    return about


def read_words(place: str, writers: Iterable[str], word: str) -> dict[str, str]:
    """By writer: empty where its word is there, else what is wrong."""
    answers = {}
    for writer in writers:
        for attempt in range(TRIES):
            try:
                with opened(f"{resolved(place)}/{MARK}-{word}-{writer}", "rb") as file:
                    same = file.read() == f"{word} {writer}".encode()
                answers[writer] = "" if same else "something else is there"
            except Exception as error:  # noqa: BLE001 (each kind of storage has its own)
                answers[writer] = said(error)
            if not answers[writer] or attempt == TRIES - 1:
                break
            time.sleep(PAUSE_S)
    return answers


def remove_word(place: str, writer: str, word: str, made: Iterable[str] = ()) -> None:
    """Take the word away, and the folders that were made for it."""
    path = f"{resolved(place)}/{MARK}-{word}-{writer}"
    with contextlib.suppress(Exception):
        if "://" in path:
            import fsspec

            files, at = fsspec.core.url_to_fs(path)
            files.rm_file(at)
        else:
            Path(path).unlink()
    for folder in made:
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def clock() -> float:
    """This machine's, in seconds since 1970."""
    return time.time()


def look(places: list[str], packages: list[str], where: str) -> dict[str, Any]:
    """This machine: name, versions, memory, disks.

    Args:
        where: the folder of the driver, from which Ray lets workers import, too.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            beside = Path(where, package, "__init__.py").is_file()
            versions[package] = "" if beside or importlib.util.find_spec(package) else None
    disks = {}
    for folder in [session_folder(), "/dev/shm", *(resolved(place) for place in places if "://" not in place)]:
        with contextlib.suppress(OSError):
            there = next(each for each in (Path(folder), *Path(folder).parents) if each.is_dir())
            usage = shutil.disk_usage(there)
            if usage.total:  # else it is none, as /proc
                disks[str(there)] = {"total": usage.total, "free": usage.free}
    return {"host": socket.gethostname(), "versions": versions, "memory": memory(), "disks": disks,
            "session": session_folder()}  # fmt: skip


def session_folder() -> str:
    """Where Ray spills to on this node."""
    ray = sys.modules.get("ray")
    with contextlib.suppress(Exception):
        return str(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[union-attr]
    return tempfile.gettempdir()


def memory() -> dict[str, int]:
    """Bytes, of the machine or of the container that this is."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
    total, free = (1024 * int(lines[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    with contextlib.suppress(OSError, ValueError, KeyError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text("ascii"))  # `max` is no number: no limit
        used = int((group / "memory.current").read_text("ascii"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
        total, free = min(total, limit), min(free, limit - used + int(kept["inactive_file"]))
    return {"total": total, "free": max(0, free)}


def asks_for_token(address: str) -> bool | None:
    """Whether the cluster answers to nobody without one; None: it cannot be found out here."""
    try:
        grpc, messages, services = (
            importlib.import_module(name)
            for name in ("grpc", "ray.core.generated.gcs_service_pb2", "ray.core.generated.gcs_service_pb2_grpc")
        )
    except ImportError:
        return None
    with grpc.insecure_channel(address) as channel:
        stub = services.NodeInfoGcsServiceStub(channel)
        try:
            stub.CheckAlive(messages.CheckAliveRequest(), timeout=5)
        except grpc.RpcError as error:
            return True if error.code() == grpc.StatusCode.UNAUTHENTICATED else None
    return False


def everywhere(
    ray: Any, limit_s: float, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """By node: what the function gives there, or `{"error": …}`.

    Args:
        arguments: by node, of the function.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = {
        remote.options(scheduling_strategy=On(node, soft=False)).remote(*words): node
        for node, words in arguments.items()
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=limit_s)
    answers: dict[str, Any] = {}
    for reference, node in asked.items():
        if reference not in ready:
            answers[node] = {"error": f"no answer within {limit_s:.0f} s"}
            continue
        try:
            answers[node] = ray.get(reference)
        except Exception as error:  # noqa: BLE001 (whatever the node did)
            answers[node] = {"error": said(getattr(error, "cause", None) or error)}
    return answers


def read_clocks(ray: Any, nodes: list[str], limit_s: float) -> dict[str, Any]:
    """By node: how far its clock is ahead of ours, and how far off that may be, in seconds."""
    found = {}
    for node in nodes:
        best: dict[str, Any] = {"error": "no answer"}
        for _ in range(CLOCK_READINGS):
            before = time.time()
            answer = everywhere(ray, limit_s, clock, {node: ()})[node]
            after = time.time()
            if isinstance(answer, dict):
                best = answer
                break
            reading = {"ahead_s": answer - (before + after) / 2, "within_s": (after - before) / 2}
            if "within_s" not in best or reading["within_s"] < best["within_s"]:
                best = reading
        found[node] = best
    return found


def main() -> None:
    """Reads `places` (by name), `address`, `word`, `packages`, `where`, `connect_s`, `limit_s` from standard input."""
    request = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints

    def tell(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    places, word = request["places"], request["word"]
    written: dict[str, Any] = {}

    def tidy() -> None:
        for name, about in written.items():
            remove_word(places[name], DRIVER, word, about["made"])

    def give_up() -> None:
        # Ray itself tries for minutes, and hears nothing meanwhile.
        tell(refused=f"no answer within {request['connect_s']:.0f} s", done=True)
        tidy()
        os._exit(0)

    try:
        for name, place in places.items():
            written[name] = write_word(place, DRIVER, word, make=True)
        tell(written={DRIVER: written})
        tell(seen={DRIVER: {name: read_words(place, [DRIVER], word) for name, place in places.items()}})
        tell(looks={DRIVER: look(list(places.values()), request["packages"], request["where"])})
        if request["address"]:
            with_ray(request, written, tell, threading.Timer(request["connect_s"], give_up))
        tell(done=True)
    finally:
        tidy()


def with_ray(
    request: dict[str, Any], written: dict[str, Any], tell: Callable[..., None], patience: threading.Timer
) -> None:
    """Connect, before the patience is over, and look at every node."""
    import ray

    patience.daemon = True
    patience.start()
    try:
        context = ray.init(address=request["address"], log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # noqa: BLE001 (Ray has many)
        chain: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            chain.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        tell(refused="\n".join(chain))
        return
    finally:
        patience.cancel()
    address = ray.get_runtime_context().gcs_address
    info = getattr(context, "address_info", {})
    nodes = [
        {"id": node["NodeID"], "address": node["NodeManagerAddress"], "host": node["NodeManagerHostname"],
         "resources": node["Resources"], "labels": node.get("Labels", {})}
        for node in ray.nodes() if node["Alive"]
    ]  # fmt: skip
    tell(ray={"version": ray.__version__, "address": address, "dashboard": info.get("webui_url") or ""}, nodes=nodes)
    tell(asks_for_token=asks_for_token(address))
    places, word, limit_s = request["places"], request["word"], request["limit_s"]
    ids = [node["id"] for node in nodes]
    seen = (list(places.values()), request["packages"], request["where"])
    looks = everywhere(ray, limit_s, look, dict.fromkeys(ids, seen))
    tell(looks={DRIVER: look(*seen), **looks})
    ids = [node for node in ids if "error" not in looks[node]]
    tell(clocks=read_clocks(ray, ids, limit_s))
    on_nodes: dict[str, dict[str, Any]] = {node: {} for node in ids}
    try:
        for name, place in places.items():
            answers = everywhere(ray, limit_s, write_word, {node: (place, node, word) for node in ids})
            for node, answer in answers.items():
                on_nodes[node][name] = answer
        tell(written={DRIVER: written, **on_nodes})
        sights: dict[str, dict[str, Any]] = {who: {} for who in (DRIVER, *ids)}
        for name, place in places.items():
            writers = [who for who, about in {DRIVER: written, **on_nodes}.items() if not about[name]["error"]]
            answers = everywhere(ray, limit_s, read_words, dict.fromkeys(ids, (place, writers, word)))
            for who, answer in {DRIVER: read_words(place, writers, word), **answers}.items():
                sights[who][name] = answer
        tell(seen=sights)
    finally:
        for place in places.values():
            everywhere(ray, limit_s, remove_word, {node: (place, node, word) for node in ids})
        ray.shutdown()


if __name__ == "__main__":
    main()
