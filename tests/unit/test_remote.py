"""Files at URLs: what is listed, what errors say, in which order a folder is copied, and whose a folder is."""

from __future__ import annotations

import io
import json
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import failing_files
import pytest
from failing_files import FlakyFiles

from raydistill.errors import ConfigError, RemoteError
from raydistill.remote import owner, sending
from raydistill.remote.copies import MANIFEST, WorkingCopy
from raydistill.remote.files import Remote, is_inside
from raydistill.remote.outbox import Outbox
from raydistill.remote.owner import OWNER, Owner, read_card
from raydistill.remote.sending import Sender


@pytest.fixture(params=["file", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    url = f"file://{tmp_path}/bucket/run" if request.param == "file" else f"memory://{uuid.uuid4().hex}/run"
    return Remote(url, "--out")


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[Remote]:
    failing_files.reset()
    yield Remote(f"flaky://{tmp_path}/bucket/run", "--out")
    failing_files.reset()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BEAT_S": 0.05, "DEAD_S": 0.6, "LOOK_S": 0.02, "SETTLE_S": 0.02}.items():
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr(sending, "PAUSES_S", (0.0, 0.05, 0.1))


def write(folder: Path, **files: str) -> Path:
    """`checkpoints__a_pt` is checkpoints/a.pt."""
    for key, content in files.items():
        path = folder / key.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def there(remote: Remote) -> dict[str, str]:
    return {name: remote.read(*name.split("/")).decode() for name in remote.find()}


def machine(root: Path, remote: Remote) -> WorkingCopy:
    root.mkdir(parents=True, exist_ok=True)
    return WorkingCopy(root, remote)


def wait_for(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_files_are_written_listed_read_and_removed(remote: Remote, tmp_path: Path) -> None:
    assert remote.names() == [] and remote.find() == {}
    remote.write(b"one", "a.txt")
    with write(tmp_path / "here", b_txt="two").joinpath("b.txt").open("rb") as file:
        remote.send(file, "deep", "b.txt")
    assert remote.names() == ["a.txt", "deep"] and sorted(remote.find()) == ["a.txt", "deep/b.txt"]
    assert remote.find()["a.txt"].size == 3 and sorted(remote.find("deep")) == ["b.txt"]
    remote.fetch(tmp_path / "copy.txt", "deep", "b.txt")
    assert (tmp_path / "copy.txt").read_text() == "two"
    before = remote.find()["a.txt"]
    remote.write(b"six", "a.txt")
    assert remote.find()["a.txt"] != before
    remote.remove("a.txt")
    remote.remove("a.txt")
    with pytest.raises(FileNotFoundError):
        remote.read("a.txt")


def test_a_url_of_one_file_lists_it(remote: Remote) -> None:
    remote.write(b"text,label\n", "rows.csv")
    alone = Remote(f"{remote.url}/rows.csv", "tasks.x.data.path")
    assert [*alone.find()] == [""] and alone.find()[""].size == 11 and alone.find()[""].stamp


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../b", "/etc/passwd", ".hidden", "a/.hidden/b", "a//b", "", "a\\b", "..", "a\0b"]
)
def test_names_that_lead_out_of_a_folder_are_not_followed(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("nonsense://bucket/run", ConfigError, "no URL that is known here"),
        ("s3://key:secretsecret@bucket/run", ConfigError, "password or a key"),
        ("ftp://127.0.0.1:1/run", RemoteError, "refused"),
        ("file://runs/run", ConfigError, "is relative; write the whole path"),
        ("file:///dev/null/run", RemoteError, "cannot be used"),
    ],
)
def test_a_url_of_no_use_is_one_line_that_names_the_key(url: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        Remote(url, "--out").check()
    text = str(caught.value)
    assert "--out" in text and "\n" not in text and "secretsecret" not in text


def test_what_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.remote.files.REACHED_S", 0.2)
    remote, answer = Remote(f"file://{tmp_path}", "--out"), threading.Event()
    monkeypatch.setattr(remote, "names", lambda: answer.wait(5))
    with pytest.raises(RemoteError, match="did not answer"):
        remote.check()
    answer.set()


def test_what_others_rely_on_is_copied_first(flaky: Remote, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "here", report_json="r", config_yaml="c", log_txt="l", student__model="m",
        checkpoints__a__best_pt="b", checkpoints__a__latest_pt="l", checkpoints__a__metrics_jsonl="m",
    )  # fmt: skip
    (folder / ".lock").touch()
    Outbox(folder, flaky).send()
    names = [path.split("/bucket/run/")[1] for path in FlakyFiles.written]
    assert names == [
        "checkpoints/a/best.pt", "checkpoints/a/metrics.jsonl", "log.txt", "student/model",
        "checkpoints/a/latest.pt", "config.yaml", "report.json",
    ]  # fmt: skip


def test_a_checkpoint_never_arrives_with_the_best_student_of_an_older_one(
    flaky: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "here", best_pt="best of 1", latest_pt="step 1")

    def train_on(*_: object) -> None:
        """Between the copies of the two: first best.pt is replaced, then latest.pt, as the loop does it."""
        for name, content in (("best.pt", "best of 2"), ("latest.pt", "step 2")):
            (folder / f"{name}.new").write_text(content)
            (folder / f"{name}.new").replace(folder / name)

    outbox = Outbox(folder, flaky)
    with monkeypatch.context() as patch:
        patch.setattr(FlakyFiles, "_check", train_on)
        outbox.send()
    assert there(flaky) == {"best.pt": "best of 1", "latest.pt": "step 1"}
    assert outbox.urgent and outbox.send() and not outbox.urgent
    assert there(flaky) == {"best.pt": "best of 2", "latest.pt": "step 2"}


def test_only_what_changed_is_copied(flaky: Remote, tmp_path: Path) -> None:
    copy = machine(write(tmp_path / "here", a_txt="1", b_txt="2"), flaky)
    assert copy.send()
    FlakyFiles.written.clear()
    assert not copy.send() and FlakyFiles.written == []
    write(tmp_path / "here", a_txt="longer")
    assert copy.send()
    assert [Path(path).name for path in FlakyFiles.written] == ["a.txt", MANIFEST]


def test_another_machine_gets_all_of_it_and_the_first_gets_that_back(remote: Remote, tmp_path: Path) -> None:
    one, two = machine(tmp_path / "one", remote), machine(tmp_path / "two", remote)
    write(one.folder, config_yaml="c", checkpoints__a__latest_pt="step 1", old_txt="o")
    assert one.send()
    write(two.folder, of_no_use_txt="left from before")
    two.take()
    assert texts(two.folder) == texts(one.folder)
    (two.folder / "old.txt").unlink()
    write(two.folder, checkpoints__a__latest_pt="step two")
    assert two.send()
    assert "old.txt" not in there(remote)
    again = machine(one.folder, remote)
    again.take()
    assert texts(one.folder) == {"config.yaml": "c", "checkpoints/a/latest.pt": "step two"}
    assert again.send()  # says that the URL has this copy now
    assert not again.send()


def test_what_could_not_be_copied_before_a_crash_is_gone_on_with(remote: Remote, tmp_path: Path) -> None:
    one = machine(write(tmp_path / "one", latest_pt="step 1"), remote)
    one.send()
    write(one.folder, latest_pt="step 22")
    again = machine(one.folder, remote)
    again.take()
    assert texts(one.folder) == {"latest.pt": "step 22"}
    assert again.send() and there(remote)["latest.pt"] == "step 22"


def test_what_was_cut_off_while_it_was_copied_does_not_count(flaky: Remote, tmp_path: Path) -> None:
    one, two = machine(tmp_path / "one", flaky), machine(tmp_path / "two", flaky)
    write(one.folder, config_yaml="c")
    one.send()
    write(one.folder, initial__a_txt="1", initial__b_txt="2")
    FlakyFiles.broken, FlakyFiles.left = "the network is gone", 1
    with pytest.raises(RemoteError, match=r"--out flaky://.*the network is gone"):
        one.send()
    failing_files.reset()
    assert "initial/a.txt" in there(flaky)
    two.take()
    assert texts(two.folder) == {"config.yaml": "c"} and not (two.folder / "initial").exists()
    one.send()
    assert json.loads(there(flaky)[MANIFEST])["files"].keys() == texts(one.folder).keys()


def test_a_url_that_was_emptied_empties_the_copy(remote: Remote, tmp_path: Path) -> None:
    one = machine(write(tmp_path / "one", config_yaml="c"), remote)
    one.send()
    for name in remote.find():
        remote.remove(name)
    one.take()
    assert texts(one.folder) == {}


def test_what_a_manifest_names_outside_of_the_folder_is_left_alone(remote: Remote, tmp_path: Path) -> None:
    remote.write(json.dumps({"copy": "x", "files": {"../../escaped.txt": [1, 1], "a.txt": [1, 1]}}).encode(), MANIFEST)
    remote.write(b"a", "a.txt")
    one = machine(tmp_path / "deep" / "er" / "one", remote)
    one.take()
    assert texts(one.folder) == {"a.txt": "a"} and not list(tmp_path.glob("**/escaped.txt"))


@pytest.mark.parametrize("content", ["[1]", json.dumps({"copy": "x", "files": {"a.txt": [1, 10**30]}})])
def test_a_damaged_manifest_is_one_line(remote: Remote, tmp_path: Path, content: str) -> None:
    remote.write(b"a", "a.txt")
    remote.write(content.encode(), MANIFEST)
    with pytest.raises(RemoteError, match=r"manifest\.json is damaged"):
        machine(tmp_path / "one", remote).take()


def test_a_sender_copies_a_checkpoint_at_once_and_the_rest_in_the_end(remote: Remote, tmp_path: Path) -> None:
    copy = machine(write(tmp_path / "here", config_yaml="c"), remote)
    copy.send()
    sender = Sender(copy, every_s=60, say=lambda text: None, look_s=0.02)
    sender.start()
    write(copy.folder, latest_pt="step 1")
    wait_for(lambda: "latest.pt" in remote.find())
    write(copy.folder, log_txt="the end")
    sender.finish()
    assert there(remote)["log.txt"] == "the end"


def test_a_sender_tells_tries_again_and_loses_nothing(flaky: Remote, tmp_path: Path) -> None:
    copy, heard = machine(write(tmp_path / "here", config_yaml="c"), flaky), []
    copy.send()
    sender = Sender(copy, every_s=0.05, say=heard.append, look_s=0.02)
    sender.start()
    FlakyFiles.broken = "the network is gone"
    write(copy.folder, latest_pt="step 1")
    wait_for(lambda: heard)
    assert "the network is gone" in heard[0] and str(copy.folder) in heard[0]
    time.sleep(0.3)
    assert len(heard) == 1
    failing_files.reset()
    wait_for(lambda: len(heard) == 2)
    assert "can be used again" in heard[1] and there(flaky)["latest.pt"] == "step 1"
    FlakyFiles.broken = "gone for good"
    write(copy.folder, report_json="{}")
    with pytest.raises(RemoteError, match=r"gone for good.*nothing is lost.*here"):
        sender.finish()


def test_a_folder_has_one_owner_while_he_lives(remote: Remote) -> None:
    heard: list[str] = []
    first, second = Owner(remote, "copy one"), Owner(remote, "copy two", heard.append)
    first.take()
    with pytest.raises(ConfigError, match=r"process \d+ on .* is writing .*another --out"):
        second.take()
    assert "looking for" in heard[0]
    first.release()
    assert OWNER not in remote.names()
    second.take()
    second.release()


def test_a_dead_owner_is_followed_whatever_his_clock_said(remote: Remote) -> None:
    dead = Owner(remote, "copy one")
    dead.take()
    dead._ended.set()
    card = json.loads(remote.read(OWNER))
    for minutes in (-30, 30):
        remote.write(json.dumps({**card, "at": time.time() + 60 * minutes}).encode(), OWNER)
        heir = Owner(remote, "copy two")
        began = time.monotonic()
        heir.take()
        assert 0.5 < time.monotonic() - began < 5
        heir.release()
    remote.write(json.dumps({**card, "at": time.time() - 7_200}).encode(), OWNER)
    began = time.monotonic()
    Owner(remote, "copy three").take()
    assert time.monotonic() - began < 0.5


CARD = {"id": "a", "copy": "b", "host": "c", "pid": 1, "beat": 2}


@pytest.mark.parametrize("damaged", [[], CARD, {**CARD, "at": "x"}, {**CARD, "at": 0.0, "pid": "x"}])
def test_a_card_that_cannot_be_read_is_nobodys(remote: Remote, damaged: Any) -> None:
    remote.write(json.dumps(damaged).encode(), OWNER)
    owner = Owner(remote, "copy one")
    owner.take()
    owner.release()


def test_who_worked_in_the_very_same_copy_is_dead(remote: Remote) -> None:
    first, second = Owner(remote, "copy one"), Owner(remote, "copy one")
    first.take()
    began = time.monotonic()
    second.take()
    assert time.monotonic() - began < 0.5
    second.release()


def test_an_owner_who_was_taken_for_dead_finds_out(remote: Remote) -> None:
    heard: list[str] = []
    slow = Owner(remote, "copy one", heard.append)
    slow.take()
    heir = Owner(remote, "copy one")
    heir.take()
    wait_for(lambda: slow.lost_to)
    card = read_card(remote)
    assert "has taken over" in heard[0] and card is not None and card.id == heir.id
    slow.release()
    assert OWNER in remote.names()
    heir.release()


def test_a_copy_that_cannot_be_written_is_one_line(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RemoteError, match="cannot write to"):
        WorkingCopy(tmp_path / "file", remote)


def test_a_remote_travels(remote: Remote) -> None:
    copied = pickle.loads(pickle.dumps(remote))
    assert (copied.url, copied.key, copied.failure) == (remote.url, remote.key, remote.failure)


class Torn(io.BytesIO):
    """A file that cannot be read to its end."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError("the disk is gone")
        return super().read(4)


def test_half_a_file_is_no_file(remote: Remote) -> None:
    remote.write(b"whole", "a.txt")
    with pytest.raises(RemoteError, match="the disk is gone"):
        remote.send(Torn(b"0123456789"), "b.txt")
    assert {name for name in remote.names() if not name.startswith(".")} == {"a.txt"}
    assert remote.names() == ["a.txt"]
