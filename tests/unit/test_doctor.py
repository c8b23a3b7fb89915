"""The doctor's judgement, on made-up and on real sights: what is wrong is found, named, and comes with a way out."""

from __future__ import annotations

import http.server
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raydistill.commands.checks import node_script
from raydistill.commands.checks.findings import Finding, Level, bad, checked, good, run_script, warning
from raydistill.commands.checks.gpus import judge_gpus
from raydistill.commands.checks.node_script import DRIVER, look, read_words, remove_word, write_word
from raydistill.commands.checks.nodes import judge_clocks, judge_node_versions, judge_places, judge_space
from raydistill.commands.checks.reaching import (
    Token,
    ask_dashboard,
    find_address,
    judge_dashboard,
    judge_openness,
    judge_refusal,
    judge_token,
    read_token,
)
from raydistill.commands.checks.versions import judge_bounds, judge_imports, judge_python
from raydistill.commands.doctor import _asked, _Printer
from raydistill.config.models import RayConfig
from raydistill.errors import ConfigError

GIB = 2**30
NAMES = {DRIVER: "this machine", "a": "alpha (a)", "b": "beta (b)"}


def errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is Level.ERROR]


def only(findings: list[Finding], level: Level) -> Finding:
    assert [finding.level for finding in findings] == [level], findings
    return findings[0]


# How checks are run


def test_a_check_that_crashes_is_one_line_and_no_traceback() -> None:
    def crash() -> list[Finding]:
        raise KeyError("first line\nsecond line")

    finding = only(checked("thing", crash, 5), Level.ERROR)
    assert finding.name == "thing" and "KeyError" in finding.text and "\n" not in finding.text


def test_an_error_of_ours_is_what_is_wrong_and_what_to_do() -> None:
    def refuse() -> list[Finding]:
        raise ConfigError("no Ray answers at x; start one")

    finding = only(checked("Ray", refuse, 5), Level.ERROR)
    assert (finding.text, finding.fix) == ("no Ray answers at x", "start one")


def test_a_check_that_hangs_is_left_behind() -> None:
    began, gate = time.monotonic(), threading.Event()
    finding = only(checked("thing", lambda: [good("thing", str(gate.wait(30)))], 0.2), Level.ERROR)
    gate.set()
    assert "no answer within" in finding.text and time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("while True: pass", "no answer within"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
        ("raise SystemExit('no good')", "no good"),
        ("print(json.dumps({'done': True}))", ""),
    ],
)
def test_a_script_that_ends_badly_has_still_told_what_it_knew(tmp_path: Path, body: str, why: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import json\nprint('noise')\nprint(json.dumps({{'known': 1}}), flush=True)\n{body}\n")
    told, ended = run_script(script, {}, 3.0)
    assert told["known"] == 1 and why in ended and bool(why) == bool(ended)


def test_what_lies_about_is_not_taken_for_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('mine')")
    script = tmp_path / "script.py"
    script.write_text("import json\nprint(json.dumps({'done': True}))")
    monkeypatch.chdir(tmp_path)
    assert run_script(script, {}, 20.0) == ({"done": True}, "")


def test_texts_hold_neither_secrets_nor_control_characters() -> None:
    finding = bad("store.path", "s3://KEY:SECRET@bucket\x1b[31m\nfails")
    assert finding.text == "s3://…@bucket\ufffd[31m fails"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_lines_are_plain_where_stdout_is_no_terminal(encoding: str) -> None:
    code = (
        "from raydistill.commands.checks.findings import bad, good, warning\n"
        "from raydistill.commands.doctor import _Printer\n"
        "printer = _Printer()\n"
        "for finding in good('a', 'x' * 300), warning('b', '[red]y'), bad('c', 'z', 'mend it'): printer.show(finding)"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": encoding, "HOME": "/nowhere"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    marks = "✓!✗" if encoding == "utf-8" else "+!x"
    assert result.stdout.decode(encoding).splitlines() == [
        f"{marks[0]} a: {'x' * 300}", f"{marks[1]} b: [red]y", f"{marks[2]} c: z", "    fix: mend it"
    ]  # fmt: skip


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _Printer().show(good("a", "b"))
    assert "\x1b[" in capsys.readouterr().out


# Versions and imports


def test_bounds_that_hold_say_nothing() -> None:
    wants = {"raydistill": ["torch>=2.11,<2.15", "rich", 'extra-thing; extra == "demo"'], "torch": ["sympy"]}
    assert judge_bounds(wants, {"torch": "2.14.1+cu130", "rich": "14", "sympy": "1"}) == []
    assert judge_python("3.12.1", ">=3.11") == []


def test_a_python_that_is_too_old_is_named() -> None:
    assert ">=3.11" in only(judge_python("3.10.2", ">=3.11"), Level.ERROR).fix


def test_a_version_outside_our_bounds_comes_with_the_command_that_mends_it() -> None:
    wants = {"raydistill": ["optuna>=5,<6", "filelock>=4.2"]}
    findings = errors(judge_bounds(wants, {"optuna": "4.9", "filelock": None}))
    assert [finding.fix for finding in findings] == ["pip install 'optuna<6,>=5'", "pip install 'filelock>=4.2'"]
    assert "4.9" in findings[0].text and "not installed" in findings[1].text


def test_a_clash_between_two_of_the_torches_is_mended_by_all_three() -> None:
    finding = only(judge_bounds({"torchvision": ["torch==2.14.1"]}, {"torch": "2.13.0+cpu"}), Level.ERROR)
    assert "torchvision wants ==2.14.1" in finding.text and "torch torchvision torchaudio" in finding.fix


def test_a_clash_between_others_is_a_warning() -> None:
    assert only(judge_bounds({"datasets": ["fsspec<=2025"]}, {"fsspec": "2026.1"}), Level.WARNING)


def imports(**changes: dict[str, str]) -> dict[str, Any]:
    versions = {
        "torch": "2.14.1+cu130", "torchvision": "0.29.1+cu130", "torchaudio": "2.11.0+cu130", "transformers": "5.23",
        "ray": "2.60", "optuna": "5",
    }  # fmt: skip
    return {name: {"version": version, "error": ""} for name, version in versions.items()} | changes


def test_libraries_that_load_are_well() -> None:
    only(judge_imports(imports(), ""), Level.GOOD)


def test_the_cpu_only_torch_that_breaks_torchvision_is_recognised() -> None:
    broken = imports(
        torch={"version": "2.13.0+cpu", "error": ""},
        torchvision={"version": "", "error": "RuntimeError: operator torchvision::nms does not exist"},
        torchaudio={"version": "", "error": "OSError: libtorchaudio.so: undefined symbol: _ZN3c10"},
    )
    findings = errors(judge_imports(broken, ""))
    assert len(findings) == 2 and all("2.13.0+cpu" in finding.text for finding in findings)
    assert all("torch torchvision torchaudio" in finding.fix for finding in findings)


def test_builds_for_different_cuda_are_found_though_they_load() -> None:
    mixed = imports(torchvision={"version": "0.29.1+cu128", "error": ""})
    finding = only(judge_imports(mixed, ""), Level.ERROR)
    assert "torchvision for cu128" in finding.text and "torch for cu130" in finding.text


def test_a_library_that_takes_its_process_with_it_is_named() -> None:
    told = imports()
    told = {name: told[name] for name in ("torch", "torchvision")}
    finding = only(judge_imports(told, "its process ended with status -11: "), Level.ERROR)
    assert "torchaudio" in finding.text and "-11" in finding.text


# GPUs


CODES = ("sm_80", "sm_90")


def gpus(
    *devices: str, built_for: str | None = "13.0", error: str = "", codes: tuple[str, ...] = CODES
) -> dict[str, Any]:
    return {
        "built_for": built_for, "error": error, "built_for_capabilities": list(codes),
        "devices": [{"name": "H100", "memory_bytes": 80 * GIB, "capability": each} for each in devices],
    }  # fmt: skip


def test_no_gpu_is_fine() -> None:
    assert "CPU" in only(judge_gpus(gpus(), None, None), Level.GOOD).text


def test_a_gpu_is_told_with_memory_capability_and_driver() -> None:
    finding = only(judge_gpus(gpus("9.0"), [("H100", "580.1")], None), Level.GOOD)
    assert all(part in finding.text for part in ("H100", "80 GiB", "9.0", "580.1"))


@pytest.mark.parametrize(
    ("sees", "visible", "level", "fix"),
    [
        (gpus(built_for=None), None, Level.ERROR, "torch torchvision torchaudio"),
        (
            gpus(error="RuntimeError: driver too old"),
            None,
            Level.ERROR,
            "update the NVIDIA driver to one for CUDA 13.0",
        ),
        (gpus(), "", Level.WARNING, "CUDA_VISIBLE_DEVICES"),
        (gpus(), "-1", Level.WARNING, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_torch_does_not_see_comes_with_the_reason(
    sees: dict[str, Any], visible: str | None, level: Level, fix: str
) -> None:
    finding = only(judge_gpus(sees, [("H100", "580.1")], visible), level)
    assert fix in finding.fix and "580.1" in finding.text


@pytest.mark.parametrize(
    ("capability", "codes", "runs"),
    [("8.6", ("sm_80",), True), ("8.0", ("sm_86",), False), ("10.0", ("sm_90",), False),
     ("12.0", ("sm_90", "compute_90"), True), ("9.0", ("sm_90a",), True), ("6.1", ("sm_75", "sm_80"), False),
     ("9.4", ("gfx942",), True)],
)  # fmt: skip
def test_a_gpu_that_this_torch_has_no_code_for_is_found(capability: str, codes: tuple[str, ...], runs: bool) -> None:
    finding = judge_gpus(gpus(capability, codes=codes), [("X", "1")], None)[0]
    assert (finding.level is Level.GOOD) == runs


# Ray, its token and its dashboard


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path


@pytest.mark.parametrize(("mode", "readable"), [(0o644, True), (0o640, True), (0o600, False), (0o400, False)])
def test_a_token_that_others_can_read_is_told_with_chmod(home: Path, mode: int, readable: bool) -> None:
    file = home / ".ray" / "auth_token"
    file.write_text("secret-token")
    file.chmod(mode)
    findings = judge_token(read_token())
    assert bool(findings) == readable
    if readable:
        finding = only(findings, Level.WARNING)
        assert finding.fix == f"chmod 600 {file}" and "secret-token" not in finding.text


def test_a_token_in_the_environment_is_no_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-token")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert read_token() == Token("RAY_AUTH_TOKEN", None, "token") and judge_token(read_token()) == []


def test_token_mode_without_a_token_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "RAY_AUTH_TOKEN" in only(judge_token(read_token()), Level.ERROR).fix


MISMATCH = """ConnectionError: Failed to connect to Ray cluster at 10.0.0.1:6379
RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.1
This process on node 10.0.0.2 was started with:
    Ray: 2.60.0
    Python: 3.11.4
"""


def test_another_version_of_ray_is_told_with_both() -> None:
    finding = judge_refusal(MISMATCH, "2.60.0", "3.11.4")
    assert "Ray 2.59.0 on Python 3.12.1" in finding.text and "Ray 2.60.0 on Python 3.11.4" in finding.text
    assert "pip install ray==2.59.0" in finding.fix and "Python 3.12.1" in finding.fix


@pytest.mark.parametrize(
    ("text", "fix"),
    [("AuthenticationError: InvalidAuthToken", "RAY_AUTH_MODE=token"), ("ConnectionError: gone", "ray status")],
)
def test_other_refusals_have_their_own_way_out(text: str, fix: str) -> None:
    finding = judge_refusal(text, "2.60.0", "3.11.4")
    assert finding.level is Level.ERROR and fix in finding.fix


def test_an_open_cluster_is_a_warning_and_a_lonely_one_is_not() -> None:
    far, near = [{"address": "10.0.0.1"}], [{"address": "127.0.0.1"}]
    only(judge_openness(False, far, "10.0.0.1:6379"), Level.WARNING)
    only(judge_openness(True, far, "10.0.0.1:6379"), Level.GOOD)
    assert judge_openness(False, near, "127.0.0.1:6379") == []


@pytest.mark.parametrize(
    ("url", "status", "level"),
    [("127.0.0.1:8265", 200, Level.GOOD), ("10.0.0.1:8265", 200, Level.WARNING), ("10.0.0.1:8265", 401, Level.GOOD),
     ("10.0.0.1:8265", None, Level.GOOD), ("head:8265", 200, Level.WARNING), ("[::1]:8265", 200, Level.GOOD)],
)  # fmt: skip
def test_a_dashboard_that_is_open_to_the_network_is_a_warning(url: str, status: int | None, level: Level) -> None:
    only(judge_dashboard(url, status), level)
    assert judge_dashboard("", None) == []


@contextmanager
def dashboard(status: int) -> Iterator[str]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", [200, 401])
def test_the_dashboard_is_asked_without_a_token(status: int) -> None:
    with dashboard(status) as url:
        assert ask_dashboard(url) == status
    assert ask_dashboard(url) is None


@contextmanager
def silent_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_an_address_where_no_ray_is_costs_seconds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with silent_port() as port, pytest.raises(ConfigError, match="is no Ray"):
        find_address(RayConfig(address=f"127.0.0.1:{port}"))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(ConfigError, match="RAY_ADDRESS"):
        find_address(RayConfig())
    assert find_address(RayConfig(num_cpus=2)) is None  # a command would start its own
    assert time.monotonic() - began < 30


def test_a_ray_that_is_gone_and_left_its_address_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.commands.checks.reaching.find_running", lambda: "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1 .*; run `ray stop`"):
        find_address(RayConfig())
    monkeypatch.setattr("raydistill.commands.checks.reaching.find_running", lambda: None)
    assert find_address(RayConfig()) is None
    assert find_address(RayConfig(address="auto")) == "auto"


# Clocks, space and versions of nodes


@pytest.mark.parametrize(
    ("ahead_s", "within_s", "level"),
    [(0.1, 0.01, Level.GOOD), (1.5, 0.01, Level.WARNING), (-1.5, 0.01, Level.WARNING), (-7.0, 0.5, Level.ERROR),
     (3.0, 2.5, Level.GOOD), (9.0, 4.5, Level.WARNING)],
)  # fmt: skip
def test_a_clock_is_only_blamed_for_what_a_slow_answer_does_not_explain(
    ahead_s: float, within_s: float, level: Level
) -> None:
    finding = only(judge_clocks({"a": {"ahead_s": ahead_s, "within_s": within_s}}, NAMES), level)
    assert level is Level.GOOD or ("NTP" in finding.fix and "alpha" in finding.text)


def sight(**changes: Any) -> dict[str, Any]:
    return {
        "host": "alpha", "versions": {"python": "3.11.4", "raydistill": "0.1.0", "torch": "2.14.1"},
        "memory": {"total": 24 * GIB, "free": 20 * GIB}, "session": "/tmp/ray/session",
        "disks": {"/tmp/ray/session": {"total": 100 * GIB, "free": 50 * GIB},
                  "/dev/shm": {"total": 12 * GIB, "free": 12 * GIB}}, **changes,
    }  # fmt: skip


def disks(**changes: dict[str, int]) -> dict[str, Any]:
    return {"disks": sight()["disks"] | {f"/{name}": disk for name, disk in changes.items()}}


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({}, Level.GOOD, "20.0 of 24.0 GiB"),
        ({"memory": {"total": 24 * GIB, "free": GIB // 2}}, Level.ERROR, "0.5 of 24.0 GiB of memory"),
        ({"memory": {"total": 2 * GIB, "free": GIB // 2}}, Level.WARNING, "0.5 of 2.0 GiB of memory"),
        (disks(data={"total": 100 * GIB, "free": GIB}), Level.WARNING, "/data is 99% full"),
        (disks(data={"total": 100 * GIB, "free": 0}), Level.ERROR, "/data is 100% full"),
        ({"disks": {"/tmp/ray/session": {"total": 1000 * GIB, "free": 40 * GIB}}}, Level.ERROR, "spills to none"),
        (disks(data={"total": 1000 * GIB, "free": 40 * GIB}), Level.GOOD, "40 GiB or more"),
    ],
)  # fmt: skip
def test_what_is_scarce_is_named(changes: dict[str, Any], level: Level, said: str) -> None:
    finding = only(judge_space({"a": sight(**changes)}, {"a": 8 * GIB}, NAMES), level)
    assert said in finding.text and "alpha" in finding.text and bool(finding.fix) == (level is not Level.GOOD)


def test_shared_memory_that_is_smaller_than_the_object_store_is_told() -> None:
    finding = only(judge_space({"a": sight()}, {"a": 30 * GIB}, NAMES), Level.WARNING)
    assert "--shm-size" in finding.fix


def test_a_node_that_did_not_answer_is_an_error() -> None:
    assert "no answer" in only(judge_space({"a": {"error": "no answer within 60 s"}}, {}, NAMES), Level.ERROR).text


def test_nodes_with_other_versions_or_none_are_named() -> None:
    ours = sight()
    lacking = sight(versions={"python": "3.11.4", "raydistill": None, "torch": "2.11.0"})
    findings = judge_node_versions({DRIVER: ours, "a": sight(), "b": lacking}, NAMES)
    assert [(finding.level, "beta" in finding.text) for finding in findings] == [
        (Level.ERROR, True), (Level.WARNING, True)
    ]  # fmt: skip
    assert findings[0].fix.startswith("pip install raydistill==0.1.0") and "2.11.0" in findings[1].text


# Places


Words = Callable[..., Any]
PLACES = {"cache_dir": "/cache"}


def wrote(error: str = "", path: str = "/cache") -> dict[str, Any]:
    return {"cache_dir": {"path": path, "made": [], "error": error}}


def saw(**answers: str) -> dict[str, Any]:
    return {"cache_dir": answers}


def test_one_place_that_all_see_is_well() -> None:
    seen = {reader: saw(driver="", a="", b="") for reader in NAMES}
    finding = only(judge_places(PLACES, {writer: wrote() for writer in NAMES}, seen, NAMES), Level.GOOD)
    assert "3 writers" in finding.text


def test_a_place_of_the_same_name_that_is_not_the_same_is_found() -> None:
    seen = {DRIVER: saw(driver="", a="", b="FileNotFoundError: no"), "a": saw(driver="", a="", b="FileNotFoundError"),
            "b": saw(driver="FileNotFoundError", a="FileNotFoundError", b="")}  # fmt: skip
    finding = only(judge_places(PLACES, {writer: wrote() for writer in NAMES}, seen, NAMES), Level.ERROR)
    assert "this machine does not see what beta (b) writes" in finding.text and "storage that every node" in finding.fix


def test_a_place_that_two_nodes_share_without_the_driver_is_found() -> None:
    seen = {DRIVER: saw(driver="", a="gone", b="gone"), "a": saw(driver="gone", a="", b=""),
            "b": saw(driver="gone", a="", b="")}  # fmt: skip
    assert only(judge_places(PLACES, {writer: wrote() for writer in NAMES}, seen, NAMES), Level.ERROR)


def test_a_home_that_is_elsewhere_on_a_node_is_shown() -> None:
    written = {DRIVER: wrote(path="/root/cache"), "a": wrote(path="/home/u/cache")}
    seen = {DRIVER: saw(driver="", a="gone"), "a": saw(driver="gone", a="")}
    finding = only(judge_places({"cache_dir": "~/cache"}, written, seen, NAMES), Level.ERROR)
    assert "/root/cache for this machine" in finding.text and "/home/u/cache for alpha (a)" in finding.text


def test_a_place_that_a_node_does_not_have_or_may_not_write_is_told() -> None:
    written = {DRIVER: wrote(), "a": wrote("FileNotFoundError: no such folder"), "b": wrote("PermissionError: denied")}
    findings = errors(judge_places(PLACES, written, {}, NAMES))
    assert len(findings) == 2
    assert "beta (b)" in findings[0].text and "is not there on alpha (a)" in findings[1].text


def test_the_words_tell_two_real_folders_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes whose `~` is not the same folder, played by one process with two homes."""
    homes = {DRIVER: tmp_path / "one", "a": tmp_path / "two", "b": tmp_path / "one"}
    written: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    monkeypatch.setattr(node_script, "PAUSE_S", 0.0)
    (tmp_path / "two" / "cache").mkdir(parents=True)
    for who, home in homes.items():
        monkeypatch.setenv("HOME", str(home))
        written[who] = {"cache_dir": write_word("~/cache", who, "word", make=who == DRIVER)}
    for who, home in homes.items():
        monkeypatch.setenv("HOME", str(home))
        seen[who] = {"cache_dir": read_words("~/cache", homes, "word")}
    finding = only(judge_places({"cache_dir": "~/cache"}, written, seen, NAMES), Level.ERROR)
    assert "this machine does not see what alpha (a) writes" in finding.text
    for who, home in reversed(homes.items()):
        monkeypatch.setenv("HOME", str(home))
        remove_word("~/cache", who, "word", written[who]["cache_dir"]["made"])
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["two", "cache"]  # and nothing else is left


def test_a_word_at_a_url_is_written_read_and_removed(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/labels"
    (tmp_path / "labels").mkdir()
    assert write_word(url, DRIVER, "word")["error"] == ""
    assert read_words(url, [DRIVER], "word") == {DRIVER: ""}
    remove_word(url, DRIVER, "word")
    assert not any((tmp_path / "labels").iterdir())


def test_a_url_of_an_unknown_kind_is_told() -> None:
    assert "ValueError" in write_word("nothing://bucket/labels", DRIVER, "word")["error"]


def test_folders_that_were_made_for_a_url_go_again(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/deep/labels"
    about = write_word(url, DRIVER, "word", make=True)
    assert about["error"] == "" and (tmp_path / "deep" / "labels").is_dir()
    remove_word(url, DRIVER, "word", about["made"])
    assert not (tmp_path / "deep").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    about = write_word(str(tmp_path / "file" / "cache"), DRIVER, "word", make=True)
    assert "NotADirectoryError" in about["error"]


def test_without_a_config_the_settings_are_the_default_ones_and_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYDISTILL_RUNS", "/shared/runs")
    asked = _asked(None, ["ray.address=127.0.0.1:6379", "cache_dir=/shared/cache"], None)
    assert asked.ray.address == "127.0.0.1:6379"
    assert asked.places == {"cache_dir": "/shared/cache", "run folder": "/shared/runs"}
    for place in ("file://runs/mine", "~nobody-of-that-name/runs"):
        with pytest.raises(ConfigError):
            _asked(None, [], place)


def test_what_is_no_disk_is_not_full() -> None:
    assert "/proc" not in look(["/proc/nothing"], [], "/")["disks"]


def test_this_machine_can_be_looked_at() -> None:
    seen = node_script.look(["/tmp"], ["raydistill", "nothing-of-that-name"], "/")
    assert seen["versions"]["python"] == platform.python_version()
    assert seen["versions"]["nothing-of-that-name"] is None and seen["versions"]["raydistill"]
    assert 0 < seen["memory"]["free"] <= seen["memory"]["total"]
    assert all(0 <= disk["free"] <= disk["total"] for disk in seen["disks"].values())


def test_a_warning_and_an_error_are_not_the_same() -> None:
    assert bad("a", "b").is_error and not warning("a", "b").is_error
