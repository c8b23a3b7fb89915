"""A run at a URL whose workers share no folder with the command: what goes which way, and what is left where."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import failing_files
import pytest
from failing_files import FlakyFiles

from raydistill.commands.run_at_url import RunAtUrl
from raydistill.commands.run_folder import open_run
from raydistill.config.models import Config
from raydistill.errors import RemoteError
from raydistill.remote import owner, sending
from raydistill.remote.files import Remote
from raydistill.remote.owner import Disowned, read_card
from raydistill.training import elsewhere, following
from raydistill.training.elsewhere import ArmThere, Worker, worker_folder
from raydistill.training.events import append_events, read_events
from raydistill.training.following import Follower
from raydistill.training.plan import RunPlace, TrainingPlan

ARM, INITIAL = "checkpoints/distilled-seed0", "checkpoints/initial-seed0"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"BEAT_S": 0.05, "DEAD_S": 0.4, "LOOK_S": 0.02, "SETTLE_S": 0.02}.items():
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr(sending, "PAUSES_S", (0.0, 0.02, 0.04, 0.06))
    monkeypatch.setattr(elsewhere, "EVERY_S", 0.05)
    monkeypatch.setattr(elsewhere, "LOOK_S", 0.02)
    monkeypatch.setattr(following, "EVERY_S", 0.0)
    failing_files.reset()
    yield
    failing_files.reset()


@pytest.fixture
def config(make_config: Callable[..., Config], tmp_path: Path) -> Config:
    return make_config(("mood",), cache_dir=str(tmp_path / "command"), training={"num_workers": 2})


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Iterator[RunAtUrl]:
    """The command, with an initial student at the URL."""
    # One of the tests has it taken over.
    with contextlib.suppress(RemoteError), open_run(config, f"flaky://{tmp_path}/bucket/run") as folder:
        write(folder.initial(0), "model.safetensors", "weights")
        assert folder.at_url is not None
        folder.at_url.now()
        yield folder.at_url
        failing_files.reset()


@pytest.fixture
def plan(config: Config, run: RunAtUrl, tmp_path: Path) -> TrainingPlan:
    """As workers get it, whose cache is another one."""
    root = run.folder
    return TrainingPlan(
        config.model_copy(update={"cache_dir": str(tmp_path / "node")}), "distilled", 0, root / INITIAL, root / ARM,
        root / "tensorboard" / "distilled-seed0", {}, {}, None, at_url=RunPlace(run.url, "--out", run.owner.id, root),
    )  # fmt: skip


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.new").write_text(text, encoding="utf-8")
    return (folder / f"{name}.new").replace(folder / name)


def there(run: RunAtUrl, place: str = ARM) -> set[str]:
    return set(Remote(run.url, "--out").find(place))


def wait_for(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def work(plan: TrainingPlan, rank: int = 0, until: Callable[[], object] = lambda: True) -> None:
    """What a worker writes."""
    with worker_folder(plan, rank) as worker:
        for name in ("best.pt", "latest.pt", "metrics.jsonl"):
            write(worker.plan.folder, name, f"of rank {rank}")
        write(worker.plan.tensorboard, "events.out.tfevents", "curves")
        write(worker.plan.folder, "alive", "yes")
        append_events(worker.plan.folder, [(1.0 + rank, f"seen by rank {rank}")], worker.plan.events_file)
        wait_for(until)


def taken_over(run: RunAtUrl) -> str | None:
    """By another command; again, where this one has just written that it lives."""
    remote = Remote(run.url, "--out")
    card = read_card(remote)
    assert card is not None
    remote.write(json.dumps({**vars(card), "id": "another command"}).encode(), owner.OWNER)
    time.sleep(0.1)
    return run.owner.lost_to


def lose(worker: Worker, run: RunAtUrl) -> None:
    """What a worker sees then."""
    wait_for(lambda: taken_over(run))
    write(worker.plan.folder, "latest.pt", "step 1")
    wait_for(lambda: worker._outbox.lost)
    with pytest.raises(Disowned):
        worker.check()


def test_rank_0_copies_what_it_writes_while_it_works(plan: TrainingPlan, run: RunAtUrl, tmp_path: Path) -> None:
    work(plan, until=lambda: {"best.pt", "latest.pt", "metrics.jsonl", "alive"} <= there(run))
    assert "alive" not in there(run) and "events.out.tfevents" in there(run, "tensorboard/distilled-seed0")
    assert [path for path in (tmp_path / "node").rglob("*") if path.is_file()] == []
    assert not (run.folder / ARM).exists()


def test_other_ranks_copy_what_happened_only(plan: TrainingPlan, run: RunAtUrl) -> None:
    work(plan)
    work(plan, rank=1)
    ArmThere(plan).fetch_all()
    assert (plan.folder / "latest.pt").read_text() == "of rank 0"
    append_events(plan.folder, [(0.5, "seen by the command")])
    assert [what for _, what in read_events(plan.folder)] == ["seen by the command", "seen by rank 0", "seen by rank 1"]


def test_a_worker_begins_with_what_is_at_the_url(plan: TrainingPlan) -> None:
    work(plan)
    with worker_folder(plan, 0) as worker:
        assert (worker.plan.initial_student / "model.safetensors").read_text() == "weights"
        assert {path.name for path in worker.plan.folder.iterdir()} == {"best.pt", "latest.pt", "metrics.jsonl"}
    with worker_folder(plan, 1) as worker:
        assert {path.name for path in worker.plan.folder.iterdir()} == {"latest.pt"}


def test_the_command_has_what_is_there_and_nothing_else(plan: TrainingPlan) -> None:
    work(plan)
    for name in ("latest.pt", "of an older run.pt", "events.jsonl"):
        write(plan.folder, name, "stale")
    write(plan.ray_train, "alive", "of Ray")
    ArmThere(plan).fetch_all()
    assert (plan.folder / "latest.pt").read_text() == "of rank 0"
    assert not (plan.folder / "of an older run.pt").exists()
    assert (plan.folder / "events.jsonl").exists() and (plan.ray_train / "alive").exists()


def test_the_command_follows_small_files_only(plan: TrainingPlan, run: RunAtUrl) -> None:
    heard: list[dict[str, object]] = []
    remote, follower = Remote(run.url, "--out"), Follower(plan, heard.append)
    remote.write(b'{"step": 1}\n', *ARM.split("/"), "metrics.jsonl")
    remote.write(b"1", *ARM.split("/"), "alive")
    remote.write(b"large", *ARM.split("/"), "latest.pt")
    follower.look()
    assert heard == [{"step": 1}] and follower.beats() and not follower.beats()
    assert not (plan.folder / "latest.pt").exists()


def test_a_url_that_cannot_be_seen_is_told_and_no_sign_of_death(
    plan: TrainingPlan, run: RunAtUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[dict[str, object]] = []
    follower = Follower(plan, heard.append)

    def fail(*_: object, **__: object) -> None:
        raise TimeoutError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(FlakyFiles, "find", fail)
        for _ in range(3):
            follower.look()
            assert follower.beats()
    assert len(heard) == 1 and "gone" in str(heard[0]["event"])
    follower.look()
    assert not follower.beats()


def test_a_worker_whose_url_fails_tells_and_goes_on(plan: TrainingPlan, run: RunAtUrl) -> None:
    with worker_folder(plan, 0) as worker:
        FlakyFiles.broken = "the network is gone"
        write(worker.plan.folder, "latest.pt", "step 1")
        wait_for(lambda: any("the network is gone" in what for _, what in read_events(worker.plan.folder)))
        failing_files.reset()
        wait_for(lambda: "latest.pt" in there(run))


def test_what_a_worker_cannot_copy_stays_on_its_node(plan: TrainingPlan, tmp_path: Path) -> None:
    def break_off() -> bool:
        FlakyFiles.broken = "the network is gone"
        return True

    with pytest.raises(RemoteError, match=r"the network is gone.*nothing is lost.*run-workers.* on "):
        work(plan, until=break_off)
    assert [path.read_text() for path in (tmp_path / "node").rglob("latest.pt")] == ["of rank 0"]
    failing_files.reset()
    work(plan)
    assert len(list((tmp_path / "node").rglob("latest.pt"))) == 1  # still there


def test_folders_of_workers_that_died_are_removed(plan: TrainingPlan, tmp_path: Path) -> None:
    work(plan)
    (base,) = (tmp_path / "node" / "run-workers").iterdir()
    write(base / "dead", "latest.pt", "half way")
    (base / "dead.lock").touch()
    work(plan)
    assert list(base.iterdir()) == []


def test_a_worker_of_a_command_that_lost_the_run_ends(plan: TrainingPlan, run: RunAtUrl) -> None:
    stale = replace(plan, at_url=replace(plan.at_url, owner="another command"))  # type: ignore[type-var]
    with pytest.raises(Disowned, match=r"belongs to process \d+ on .*, not to the command that began this training"):
        work(stale)
    with pytest.raises(RemoteError, match="belongs to"), worker_folder(plan, 0) as worker:
        lose(worker, run)
    assert there(run) == set()
    with pytest.raises(Disowned), worker_folder(plan, 0):
        pass


def test_a_url_without_the_initial_student_is_one_line(plan: TrainingPlan, run: RunAtUrl) -> None:
    Remote(run.url, "--out").delete(*INITIAL.split("/"), "model.safetensors")
    with pytest.raises(RemoteError, match=f"has no {INITIAL}"):
        work(plan)
