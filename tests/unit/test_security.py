"""Attacks: what comes from another person is data, and stays data. Each is real, and leaves a mark if it works."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import runpy
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from raydistill.commands.cluster import _keep_token_private
from raydistill.commands.evaluate import evaluate
from raydistill.commands.folders import write_atomically
from raydistill.commands.progress import Progress
from raydistill.commands.report import report
from raydistill.commands.students import make_student
from raydistill.config.loader import dump_config, load_config
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.data.sources.fetch import python_sdist, unpack_tar
from raydistill.errors import ConfigError, DataError, RaydistillError, TeacherError, first_line
from raydistill.evaluation.card import model_card
from raydistill.evaluation.html import render_html
from raydistill.secrecy import presentable
from raydistill.soft_labels.index import BadIndex, LabelKey, ShardEntry, parse_index
from raydistill.soft_labels.store import LabelStore
from raydistill.student.model import Student
from raydistill.teachers.checkpoints import load_weights
from raydistill.teachers.fit import STATE, fit
from raydistill.teachers.models import build
from raydistill.training.checkpoint import BEST, LATEST, TrainingState, load_state, load_tensors, save_state
from raydistill.tuning.pages import _trials
from raydistill.tuning.records import TrialRecord

MakeConfig = Callable[..., Config]
Data = dict[str, TaskData]
SCRIPT = "<script>alert(1)</script>"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What an attack leaves; none may."""
    path = tmp_path / "attacked"
    yield path
    assert not path.exists(), "the attack worked"


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def attack_file(path: Path, mark: Path, zipped: bool) -> Path:
    """As `torch.save` writes it today, or as plain pickles were written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if zipped:
        torch.save({"step": Attack(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"step": Attack(mark)}, protocol=2))
    return path


zipped_or_not = pytest.mark.parametrize("zipped", [True, False], ids=["torch.save", "pickle"])


# What is unpickled


@zipped_or_not
def test_a_students_checkpoint_that_is_an_attack_is_refused(tmp_path: Path, mark: Path, zipped: bool) -> None:
    attack_file(tmp_path / LATEST, mark, zipped)
    with pytest.raises(RaydistillError, match=r"latest\.pt cannot be read .*--again"):
        load_state(tmp_path)
    with pytest.raises(RaydistillError, match=r"best\.pt cannot be read"):
        load_tensors(attack_file(tmp_path / BEST, mark, zipped))


@zipped_or_not
def test_a_teachers_unfinished_training_that_is_an_attack_is_refused(
    tmp_path: Path, mark: Path, zipped: bool, tiny_data: Data, make_config: MakeConfig
) -> None:
    section = {"task": "bands", "loader": "python", "model": "own_teachers:pixels", "train": {"num_epochs": 1}}
    config = make_config(("bands",), teachers={"it": section}).teachers["it"]
    network = build("it", config, "vision", tiny_data["bands"].settings, 3, None)
    attack_file(tmp_path / STATE, mark, zipped)
    assert config.train is not None
    with pytest.raises(TeacherError, match=r"training\.pt cannot be read .*delete it"):
        fit(network, tiny_data["bands"], config.train, tmp_path, 0, lambda _: None)


@zipped_or_not
def test_a_teachers_weights_are_no_pickle_whatever_their_name(tmp_path: Path, mark: Path, zipped: bool) -> None:
    attack_file(tmp_path / "model.safetensors", mark, zipped)
    with pytest.raises(TeacherError, match="not a readable safetensors file"):
        load_weights("it", torch.nn.Linear(1, 1), tmp_path)


@zipped_or_not
def test_pretrained_weights_that_are_an_attack_are_refused(
    tmp_path: Path, mark: Path, zipped: bool, make_config: MakeConfig, tiny_data: Data
) -> None:
    folder = tiny.save_transformers("bands", tmp_path / "vit")
    (folder / "model.safetensors").unlink()
    attack_file(folder / "pytorch_model.bin", mark, zipped)
    section = {"task": "bands", "loader": "transformers", "model": str(folder)}
    config = make_config(("bands",), teachers={"it": section})
    with pytest.raises(TeacherError, match=r"cannot build .* more than tensors"):
        build("it", config.teachers["it"], "vision", tiny_data["bands"].settings, 3, None)


@zipped_or_not
def test_a_student_that_is_an_attack_is_refused(
    tmp_path: Path, mark: Path, zipped: bool, make_config: MakeConfig, tiny_data: Data
) -> None:
    folder = tmp_path / "student"
    make_student(make_config(("bands",)), {"bands": tiny_data["bands"]}, 0, folder)
    attack_file(folder / "model.safetensors", mark, zipped)
    with pytest.raises(ConfigError, match="holds no student that can be read"):
        Student.from_pretrained(str(folder))
    with pytest.raises(ConfigError, match="never from a pickle"):
        Student._load_as_pickle(None, str(attack_file(tmp_path / "pytorch_model.bin", mark, zipped)), "cpu", True)


# Code that comes with data


def evil_module(folder: Path, mark: Path, name: str = "evil_module") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\n", encoding="utf-8")
    return path


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("model_type", ["vit", "unheard-of"])
def test_a_model_that_brings_its_own_code_is_used_without_it_or_refused_without_asking(
    tmp_path: Path, mark: Path, make_config: MakeConfig, tiny_data: Data, model_type: str
) -> None:
    folder = tiny.save_transformers("bands", tmp_path / "vit")
    evil_module(folder, mark)
    code = {
        "model_type": model_type, "auto_map": {"AutoConfig": "evil_module.Evil", "AutoModel": "evil_module.Evil",
                                               "AutoModelForImageClassification": "evil_module.Evil"}
    }  # fmt: skip
    change_json(folder / "config.json", lambda content: content.update(code))
    section = {"task": "bands", "loader": "transformers", "model": str(folder)}
    config = make_config(("bands",), teachers={"it": section}).teachers["it"]
    if model_type == "vit":
        build("it", config, "vision", tiny_data["bands"].settings, 3, None)
    else:
        with pytest.raises(TeacherError, match="cannot build"):
            build("it", config, "vision", tiny_data["bands"].settings, 3, None)


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"attn_implementation": "somebody/kernel"}])
@pytest.mark.parametrize("model", ["vit", "folder"])
def test_options_that_would_run_code_of_the_hub_are_refused(
    tmp_path: Path, make_config: MakeConfig, tiny_data: Data, options: dict[str, Any], model: str
) -> None:
    model = str(tiny.save_transformers("bands", tmp_path / "vit")) if model == "folder" else model
    section = {"task": "bands", "loader": "transformers", "model": model, "options": options}
    config = make_config(("bands",), teachers={"it": section}).teachers["it"]
    with pytest.raises(TeacherError, match="would run code from the hub"):
        build("it", config, "vision", tiny_data["bands"].settings, 3, None)


def test_a_student_whose_config_names_a_kernel_of_the_hub_is_refused(
    tmp_path: Path, make_config: MakeConfig, tiny_data: Data
) -> None:
    student = {**tiny.STUDENT, "trunk": "transformers"}
    make_student(make_config(("bands",), student=student), {"bands": tiny_data["bands"]}, 0, tmp_path / "student")

    def change(content: dict[str, Any]) -> None:
        content["shape"]["trunk_options"]["config"]["attn_implementation"] = "somebody/kernel"

    change_json(tmp_path / "student" / "config.json", change)
    with pytest.raises(ConfigError, match="would run code from the hub"):
        Student.from_pretrained(str(tmp_path / "student"))


@pytest.fixture
def foreign_run(tmp_path: Path, mark: Path, make_config: MakeConfig, tiny_data: Data) -> Path:
    """Another person's finished run, whose teacher is code that lies beside it."""
    run = tmp_path / "run"
    evil_module(run, mark)
    section = {"task": "bands", "loader": "python", "model": "evil_module:Evil", "checkpoint": str(run / "evil")}
    config = make_config(("bands",), teachers={"evil": section})
    make_student(config, {"bands": tiny_data["bands"]}, 0, run / "student")
    (run / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (run / "report.json").write_text(json.dumps(page_tests()["report"]()), encoding="utf-8")
    return run


def test_evaluating_another_persons_run_imports_none_of_its_teachers(
    foreign_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(foreign_run))
    assert evaluate(foreign_run)["bands"]["num_rows"] > 0
    report(foreign_run)
    assert "evil_module" not in sys.modules


def test_files_in_another_persons_run_are_no_modules_of_ours(foreign_run: Path, mark: Path) -> None:
    """As the installed command does it: Python itself looks for no module where the user is (-P)."""
    for name in ("matplotlib", "rich", "torch", "json", "fsspec"):
        evil_module(foreign_run, mark, name)
    result = subprocess.run(
        [sys.executable, "-P", "-m", "raydistill.cli", "report", "."], cwd=foreign_run, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


# Archives and downloads


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def plain(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), b"attack"


@pytest.mark.parametrize(
    "members",
    [
        lambda outside: [plain("../attacked")],
        lambda outside: [plain("a/../../attacked")],
        lambda outside: [plain(str(outside))],
        lambda outside: [link("way", str(outside.parent)), plain("way/attacked")],
        lambda outside: [link("way", ".."), plain("way/attacked")],
        lambda outside: [link("a/way", "../.."), plain("a/way/attacked")],
        lambda outside: [link("attack", "../outside", tarfile.LNKTYPE), plain("attack")],
        lambda outside: [link("device", "", tarfile.CHRTYPE)],
    ],
    ids=["up", "down-and-up", "absolute", "absolute-link", "link-up", "deep-link-up", "hard-link", "device"],
)
def test_no_member_of_an_archive_lands_outside(tmp_path: Path, mark: Path, members: Any) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "into").mkdir()
    archive = tar_of(tmp_path / "data.tar.gz", *members(mark))
    try:
        unpack_tar(archive, tmp_path / "into")
    except DataError as error:
        assert "data.tar.gz is not unpacked" in str(error) and "\n" not in str(error)  # noqa: PT017 (or all lies inside)
    assert (tmp_path / "outside").read_text() == "mine"
    for path in (tmp_path / "into").rglob("*"):
        assert path.resolve().is_relative_to((tmp_path / "into").resolve())
        assert path.is_dir() or path.is_file()


def test_members_are_written_without_dangerous_modes(tmp_path: Path) -> None:
    member, content = plain("tool")
    member.mode = 0o6777
    (tmp_path / "into").mkdir()
    unpack_tar(tar_of(tmp_path / "data.tar.gz", (member, content)), tmp_path / "into")
    assert stat.S_IMODE((tmp_path / "into" / "tool").stat().st_mode) & 0o6022 == 0


@pytest.mark.parametrize("cut", [0, 10, 30_000])
def test_a_torn_archive_is_one_line(tmp_path: Path, cut: int) -> None:
    archive = tar_of(tmp_path / "data.tar.gz", (tarfile.TarInfo("a"), os.urandom(50_000)))
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises((DataError, OSError)):
        unpack_tar(archive, tmp_path)


def test_a_source_package_of_another_content_never_runs(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n",
        "setup.py": f"import os\nos.mkdir({str(mark)!r})\n",
    }
    members = [(tarfile.TarInfo(f"tiny_words-1.0/{name}"), content.encode()) for name, content in files.items()]
    tar_of(shelf / "tiny_words-1.0.tar.gz", *members)
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(shelf), "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    found = hashlib.sha256((shelf / "tiny_words-1.0.tar.gz").read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"SHA-256 {found[:16]}…, expected {'0' * 16}"):
        python_sdist("tiny-words==1.0", {"tiny_words-1.0.tar.gz": "0" * 64}, tmp_path / "cache", lambda _: None)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", ".", "", "a/b", "a\0b", "a\n", ".hidden"])
def test_a_shards_name_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="a shard like"):
        ShardEntry.from_json({"file": name, "num_rows": 1, "sha256": "0" * 64, "bytes": 1})


def test_an_index_that_names_a_file_elsewhere_is_no_index(tmp_path: Path) -> None:
    store, key = LabelStore(tmp_path), LabelKey("teacher", "split", 0)
    table = store.table(key, 4, 3)
    table.write(np.arange(4), np.zeros((4, 3), np.float16))
    table.close()
    index = tmp_path / key.digest / "index.json"
    change_json(index, lambda content: content["shards"][0].update(file="../../outside"))
    with pytest.raises(BadIndex):
        parse_index(index.read_bytes(), str(index))


# Secrets


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/labels", f"https://user:{SECRET}@host/labels",
        f"simplecache::s3://key:{SECRET}@bucket/labels", f"redis://:{SECRET}@host", "ftp://user:12345@host",
        f"https://host/labels?sv=1&sig={SECRET}", f"s3://bucket/labels?X-Amz-Signature={SECRET}",
        f"https://host/labels?access_token={SECRET}&a=1", "s3://bucket/hf_abcdefghijklmnopqrstuvwxyz",
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["store.path", "tasks.bands.data.path", "ray.address", "description"])
def test_a_url_with_a_password_or_a_key_is_refused_and_not_repeated(
    make_config: MakeConfig, url: str, where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(make_config(("bands",)).model_dump(mode="json"), [f"{where}={json.dumps(url)}"])
    text = str(caught.value)
    assert where in text and "AWS_ACCESS_KEY_ID" in text and "\n" not in text
    for secret in (SECRET, "12345", "AKIAIOSFODNN7EXAMPLE", "hf_abc"):
        assert secret not in text


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/labels", "gs://bucket/a@b", "abfs://container@account.dfs.core.windows.net/labels",
        "sftp://user@host/labels", "http://host:8080/a@b", "http://[::1]:8080/a@b", "memory://labels",
        "file:///tmp/a:b@c", "ray://host:10001", "https://host/labels?version=3&tokens=2", "~/labels: mine @ home",
    ],
)  # fmt: skip
def test_urls_without_secrets_are_left_alone(make_config: MakeConfig, url: str) -> None:
    config = load_config(make_config(("bands",)).model_dump(mode="json"), [f"store.path={json.dumps(url)}"])
    assert config.store.path == url and presentable(url) == url


@pytest.mark.parametrize("key", ["token", "use_auth_token", "api_key", "aws_secret_access_key"])
def test_a_token_among_options_is_refused(make_config: MakeConfig, key: str) -> None:
    section = {"task": "bands", "loader": "transformers", "model": "vit", "options": {"nested": {key: SECRET}}}
    with pytest.raises(ConfigError, match=r"teachers\.it\.options: .*HF_TOKEN") as caught:
        make_config(("bands",), teachers={"it": section})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"pad_token_id": 0, "token": "cls"}, {"auth": "basic"}, {"mask_token": "[MASK]"}, {"token": True}]
)
def test_options_that_merely_speak_of_tokens_are_taken(make_config: MakeConfig, options: dict[str, Any]) -> None:
    section = {"task": "bands", "loader": "python", "model": "own_teachers:pixels", "options": options}
    assert make_config(("bands",), teachers={"it": section}).teachers["it"].options == options


def test_what_was_typed_is_not_repeated_with_its_secrets(make_config: MakeConfig) -> None:
    content = make_config(("bands",)).model_dump(mode="json")
    for word in (f"store=s3://key:{SECRET}@bucket", f"tasks.bands.data.source=s3://key:{SECRET}@bucket"):
        with pytest.raises(ConfigError) as caught:
            load_config(content, [word])
        assert SECRET not in str(caught.value)


def test_the_command_line_shows_no_secret(tmp_path: Path) -> None:
    word = f"store.path=s3://key:{SECRET}@bucket"
    result = subprocess.run(
        [sys.executable, "-m", "raydistill.cli", "distill", "demo", word, f"{word} twice.x"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2 and SECRET not in result.stderr + result.stdout


def test_other_peoples_errors_are_logged_and_reported_without_secrets(tmp_path: Path) -> None:
    error = OSError(f"cannot reach https://user:{SECRET}@host?token={SECRET} with Bearer {SECRET}")
    assert SECRET not in first_line(error) and "https://…@host" in first_line(error)
    with Progress(tmp_path / "log.txt") as progress:
        progress.say(str(error))
        progress.event(str(error))
        progress.happened(0.0, str(error))
        progress.note(str(error))
    assert SECRET not in (tmp_path / "log.txt").read_text() + json.dumps(progress.events)
    assert "https://…@host" in progress.events[0]["what"]


def test_a_name_cannot_steer_the_terminal(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError):
        make_config(("bands",), teachers={"\x1b[2J": {"task": "bands", "loader": "torchvision", "model": "resnet18"}})
    Progress().say("skipped: \x1b]0;title\x07.png")
    assert "\x1b" not in capsys.readouterr().err


# Pages


def page_tests() -> dict[str, Any]:
    """The report that the tests of the pages make up."""
    return runpy.run_path(str(Path(__file__).with_name("test_report_pages.py")))


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if items is None:
        yield path
    else:
        for key, value in items:
            yield from leaves(value, (*path, key))


def with_leaf(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def whole_report() -> dict[str, Any]:
    made = page_tests()
    fusion = {"strategy": "mean", "by_strategy": {"mean": 0.9}, "trust": {"bert": [0.5, None]}}
    task = made["task_report"](1, fusion=fusion, teachers={"bert": 0.9, "other": 0.8})
    kinds = ("weight", "loss_share", "gradient_norm")
    balancing = {
        "method": "x",
        "measured": 3,
        "cosine": {"mood~mood2": -0.5},
        **{kind: {"mood": 0.5} for kind in kinds},
    }
    events = [{"at_s": 1.0, "what": "lost"}]
    return dict(made["report"]({"mood": task}, events=events, balancing=balancing, routing={"mood": [0.5, 0.5]}))


def test_no_value_of_a_report_becomes_html(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value in turn; a page that cannot be made of one is fine, too."""
    for picture in ("before_after_bars", "learning_curves"):
        monkeypatch.setattr(f"raydistill.evaluation.html.{picture}", lambda _: "")
    content = whole_report()
    assert "script" not in Tags(render_html(content, SCRIPT)).found
    drawn = 0
    for path in leaves(content):
        try:
            text = render_html(with_leaf(content, path, SCRIPT), "")
        except (LookupError, TypeError, ValueError, AttributeError):
            continue
        assert "script" not in Tags(text).found, path
        drawn += 1
    assert drawn > 15


def test_pictures_hold_names_as_words() -> None:
    made = page_tests()
    content = made["report"]({SCRIPT: made["task_report"](1, metric=SCRIPT)})
    assert "script" not in Tags(render_html(content, "")).found


def test_a_report_page_runs_nothing_even_if_html_slipped_in() -> None:
    text = render_html(whole_report(), "")
    assert """content="default-src 'none'; style-src 'unsafe-inline'""" in text


def test_another_persons_broken_report_is_one_line(foreign_run: Path) -> None:
    for change in ({"tasks": SCRIPT}, {"seeds": None}, {"models": {"student": {"parameters": SCRIPT}}}):
        content = {**page_tests()["report"](), **change}
        (foreign_run / "report.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ConfigError, match="was not written by this version"):
            report(foreign_run)


def test_a_sweeps_page_holds_names_as_words() -> None:
    measure = f"validation.{SCRIPT}"
    trial = TrialRecord(0, "whole", {SCRIPT: SCRIPT}, {measure: 0.5, "retention": 0.5}, {}, True, SCRIPT)
    sweep: Any = SimpleNamespace(trials=[trial], space=SimpleNamespace(objective={measure: "max"}))
    assert "script" not in Tags(_trials(sweep)).found


def test_a_model_card_holds_names_as_words() -> None:
    made = page_tests()
    name = 'x");import os;("|<b>'
    card = model_card(made["report"]({name: made["task_report"](1, label_names=[SCRIPT, "a|b\nc"])}))
    row = next(line for line in card.splitlines() if line.startswith("| x"))
    assert row.count("|") == 8 and "<" not in row
    code = next(line for line in card.splitlines() if line.startswith("prepare"))
    assert f"student.preparer({json.dumps(name)})" in code


# Modes


@pytest.fixture(params=[0o022, 0o077], ids=["022", "077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


def test_files_have_the_modes_that_the_user_asks_for(
    tmp_path: Path, umask: int, make_config: MakeConfig, tiny_data: Data
) -> None:
    out = tmp_path / "out"
    write_atomically(out / "report.json", "{}")
    save_state(TrainingState(), out)
    make_student(make_config(("mood",)), {"mood": tiny_data["mood"]}, 0, out / "student")
    table = LabelStore(out / "labels").table(LabelKey("teacher", "split", 0), 4, 3)
    table.write(np.arange(4), np.zeros((4, 3), np.float16))
    table.close()
    with Progress(out / "log.txt") as progress:
        progress.say("written")
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*")}
    assert len(found) > 8
    wrong = {
        str(path.relative_to(out)): oct(mode) for path, mode in found.items()
        if mode != (0o777 if path.is_dir() else 0o666) & ~umask
    }  # fmt: skip
    assert wrong == {}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    monkeypatch.setattr("raydistill.commands.cluster.find_running", lambda: None)
    return tmp_path


def test_the_token_that_our_own_ray_makes_is_ours_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        _keep_token_private(None)
    finally:
        os.umask(before)
    token = home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(token.read_text()) == 64
    text = token.read_text()
    _keep_token_private("local")
    assert token.read_text() == text


@pytest.mark.parametrize(
    ("address", "environment"),
    [("10.0.0.1:6379", {}), ("auto", {}), (None, {"RAY_ADDRESS": "10.0.0.1:6379"}), ("local", {"RAY_AUTH_TOKEN": "x"}),
     (None, {"RAY_AUTH_MODE": "disabled"})],
)  # fmt: skip
def test_no_token_is_made_for_a_ray_of_others(
    home: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _keep_token_private(address)
    assert not (home / ".ray").exists()
