"""What goes along with a job and what must not, and how its end is told; no cluster is needed for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import raydistill
from raydistill.commands import job_server
from raydistill.commands import submit as submitting
from raydistill.commands.in_job import JOB, RUNS, SUBMITTED_BY, clusters_own, place_to_write
from raydistill.commands.job_server import Job, ended, follow
from raydistill.commands.packing import find_modules, pack, pinned_requirements
from raydistill.commands.preparing import as_config
from raydistill.commands.submit import runtime_environment, submit
from raydistill.config.loader import load_config
from raydistill.config.models import Config
from raydistill.errors import ConfigError, RaydistillError
from raydistill.tuning.space import load_space

TOKEN = "hf_" + "abcdefghij" * 3
AWS_KEY = "AKIA" + "ABCDEFGH12345678"
GITHUB = "ghp_" + "abcdefghij" * 3


def settings(**changes: Any) -> dict[str, Any]:
    data = {"source": "imagefolder", "path": "/shared/digits"}
    teacher = {"task": "digits", "loader": "python", "model": "own_teacher:network"}
    return {
        "name": "digits",
        "cache_dir": "/shared/cache",
        "tasks": {"digits": {"domain": "vision", "data": data}},
        "teachers": {"expert": teacher},
        **changes,
    }


def config(**changes: Any) -> Config:
    return load_config(settings(**changes))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with all that lies in one."""
    for name in (
        ".git/config",
        ".venv/bin/python",
        "runs/old/report.json",
        "data/a.csv",
        ".env",
        "notes.py",
        "key.pem",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("secret", encoding="utf-8")
    (tmp_path / "own_teacher.py").write_text("import helping\nimport torch\nfrom own_parts import layers\n", "utf-8")
    (tmp_path / "helping.py").write_text("import json\n", "utf-8")
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "__init__.py").write_text("", "utf-8")
    (tmp_path / "own_parts" / "layers.py").write_text("from . import deep\nimport own_base\n", "utf-8")
    (tmp_path / "own_parts" / "classes.json").write_text("[]", "utf-8")
    (tmp_path / "own_parts" / "__pycache__").mkdir()
    (tmp_path / "own_parts" / "__pycache__" / "layers.pyc").write_text("", "utf-8")
    (tmp_path / "own_base.py").write_text("import notes_that_are_nowhere\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_only_the_config_and_the_modules_that_it_needs_go(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    parcel = pack(config(), path=[str(home), *sys.path])
    folder = tmp_path_factory.mktemp("work")
    parcel.write(folder)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "config.yaml", "own_teacher.py", "helping.py", "own_parts/__init__.py", "own_parts/layers.py",
        "own_parts/classes.json", "own_base.py",
    }  # fmt: skip
    assert (folder / "helping.py").read_text("utf-8") == "import json\n"
    assert parcel.elsewhere == ()


def test_the_config_goes_resolved_and_names_no_ray_of_ones_own(home: Path) -> None:
    (home / "base.yaml").write_text(yaml.safe_dump(settings(ray={"num_cpus": 4, "lease_s": 50})), "utf-8")
    (home / "mine.yaml").write_text("extends: base.yaml\nseed: 3\n", "utf-8")
    mine = load_config(home / "mine.yaml", ["training.num_steps=7"])
    parcel = pack(mine, path=[str(home)])
    there = load_config(yaml.safe_load(parcel.texts["config.yaml"]))
    assert there == mine.model_copy(update={"ray": clusters_own(mine.ray)})
    assert (there.ray.num_cpus, there.ray.lease_s, there.training.num_steps, there.seed) == (None, 50, 7, 3)


def test_a_module_that_is_nowhere_here_has_to_be_there(home: Path) -> None:
    teacher = {"task": "digits", "loader": "python", "model": "not_here.at_all:network"}
    assert pack(config(teachers={"expert": teacher}), path=[str(home)]).elsewhere == ("not_here",)


def test_installed_modules_do_not_go(home: Path) -> None:
    names = ["torch", "json", "raydistill.networks", "yaml"]
    assert find_modules(names, [*sys.path, str(home)]) == ({}, ())


def test_a_sweep_takes_its_space_and_the_function_that_defines_it(home: Path) -> None:
    (home / "own_space.py").write_text("def draw(trial): return {}\n", "utf-8")
    space = load_space({"name": "mine", "define": "own_space:draw", "search": {"num_trials": 3}})
    parcel = pack(config(), space.model_dump(mode="json", by_alias=True), path=[str(home)])
    assert "own_space.py" in parcel.files
    (home / "packed.json").write_text(parcel.texts["space.json"], "utf-8")
    assert load_space(home / "packed.json") == space.model_copy(update={"config": "config.yaml"})


def test_a_space_with_ranges_is_the_same_after_packing(home: Path) -> None:
    space = load_space("temperature_and_weights")
    (home / "packed.json").write_text(pack(config(), space.model_dump(mode="json", by_alias=True)).texts["space.json"])
    assert load_space(home / "packed.json").space == space.space


def test_every_relative_path_is_refused_by_name(home: Path) -> None:
    (home / "encoder").mkdir()
    wrong = config(
        cache_dir="cache",
        store={"path": "labels"},
        tasks={"digits": {"domain": "vision", "data": {"source": "imagefolder", "path": "data/digits"}}},
        teachers={"one": {"task": "digits", "loader": "transformers", "model": "encoder", "checkpoint": "weights"}},
    )
    with pytest.raises(ConfigError) as caught:
        pack(wrong)
    for key in ("cache_dir 'cache'", "store.path 'labels'", "tasks.digits.data.path 'data/digits'",
                "teachers.one.checkpoint 'weights'", "teachers.one.model 'encoder'"):  # fmt: skip
        assert key in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"store": {"path": "s3://bucket/labels"}},
        {"cache_dir": "~/cache"},
        {"tasks": {"digits": {"domain": "vision", "data": {"source": "hub", "path": "mnist"}}}},
        {"teachers": {"one": {"task": "digits", "loader": "transformers", "model": "resnet", "checkpoint": "hub:a/b"}}},
    ],
)
def test_names_and_whole_paths_are_not(changes: dict[str, Any]) -> None:
    pack(config(**changes), path=[])


@pytest.mark.parametrize("name", ["server.pem", "id_rsa", "auth_token", "credentials.json", "prod.env", "deploy_key"])
def test_a_secret_file_in_a_package_is_refused(home: Path, name: str) -> None:
    (home / "own_parts" / name).write_text("-----BEGIN OPENSSH PRIVATE KEY-----", "utf-8")
    with pytest.raises(ConfigError, match=f"own_parts/{name}(, line 1: a private key| looks like a secret)"):
        pack(config(), path=[str(home)])


def test_what_is_hidden_in_a_package_stays_at_home(home: Path) -> None:
    (home / "own_parts" / ".aws").mkdir()
    for name in (".env", ".aws/config"):
        (home / "own_parts" / name).write_text("x", "utf-8")
    assert not [name for name in pack(config(), path=[str(home)]).files if "/." in name]


def test_a_link_out_of_a_package_is_refused(home: Path, tmp_path: Path) -> None:
    (home / "own_parts" / "notes.txt").symlink_to(Path(__file__))
    with pytest.raises(ConfigError, match=r"own_parts/notes\.txt is a link to"):
        pack(config(), path=[str(home)])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("keys.py", "AWS_SECRET_ACCESS_KEY = 'wJalr5xUtnFEMI'"),
        ("settings.conf", "db_password = hunter22"),
        ("aws.properties", "aws.secret: wJalr5xUtnFEMI"),
        ("own.toml", 'api_key = "k3k3k3k3"'),
    ],
)
def test_a_value_under_the_name_of_a_secret_is_one(home: Path, name: str, line: str) -> None:
    (home / "own_parts" / name).write_text(f"# mine\n{line}\n", "utf-8")
    with pytest.raises(ConfigError, match=rf"own_parts/{name}, line 2: a value under the name") as caught:
        pack(config(), path=[str(home)])
    assert line.split()[-1].strip("'\"") not in str(caught.value)


@pytest.mark.parametrize("line", ["pad_token = '<pad1>'", "token = os.environ['HF_TOKEN_2']", "secret = draw(2000)"])
def test_a_line_that_merely_speaks_of_them_goes(home: Path, line: str) -> None:
    (home / "own_parts" / "more.py").write_text(f"{line}\n", "utf-8")
    pack(config(), path=[str(home)])


def test_a_module_of_a_namespace_goes_and_one_that_is_installed_is_named(home: Path, tmp_path: Path) -> None:
    (home / "space" / "inner").mkdir(parents=True)
    (home / "space" / "inner" / "net.py").write_text("x = 1\n", "utf-8")
    files, elsewhere = find_modules(["space.inner.net", "hypothesis", "torch"], [*sys.path, str(home)])
    assert set(files) == {"space/inner/net.py"} and elsewhere == ("hypothesis",)
    assert find_modules(["space.other"], [str(home)]) == ({}, ("space",))


def test_a_secret_in_a_module_is_refused_and_not_repeated(home: Path) -> None:
    (home / "helping.py").write_text(f"import os\nTOKEN = '{TOKEN}'\n", "utf-8")
    with pytest.raises(ConfigError, match=r"helping.py, line 2: a Hugging Face token") as caught:
        pack(config(), path=[str(home)])
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hub": {"token": "letmein"}}, "hub.token"),
        ({"passphrase": "letmein"}, "passphrase"),
        ({"password": ["letmein"]}, "password[0]"),
        ({"credentials": {"who": "letmein"}}, "credentials.who"),
        ({"keys": ["a", GITHUB]}, "keys[1]"),
        ({"note": "-----BEGIN RSA PRIVATE KEY-----"}, "note"),
        ({"keys": ["a", AWS_KEY]}, "keys[1]"),
        ({GITHUB: 1}, ""),
        ({"url": "https://me:letmein@example.org/x"}, "url"),
    ],
)
def test_a_secret_among_the_values_is_refused_and_not_repeated(options: dict[str, Any], said: str) -> None:
    teacher = {"task": "digits", "loader": "python", "model": "own_teacher:network", "options": options}
    with pytest.raises(ConfigError) as caught:
        config(teachers={"expert": teacher})
    said = f"teachers.expert.options: {said}{': ' if said else ''}a password, key or token"
    assert said in str(caught.value)
    assert all(secret not in str(caught.value) for secret in ("letmein", AWS_KEY, GITHUB))


def test_a_secret_in_an_override_is_refused_before_anybody_is_asked(home: Path) -> None:
    words = [f"teachers.expert.options={{key: {TOKEN}}}"]
    with pytest.raises(ConfigError, match="a password, key or token"):
        submit(settings(), words, address="http://127.0.0.1:1")


@pytest.mark.parametrize("recipe", sorted(raydistill.list_recipes()))
def test_the_shipped_recipes_hold_none(recipe: str) -> None:
    pack(load_config(recipe))


def test_weights_beside_the_code_are_too_much(home: Path) -> None:
    with (home / "own_parts" / "weights.bin").open("wb") as file:
        file.truncate(60 * 2**20)
    with pytest.raises(ConfigError, match=r"60 MB, most of it in own_parts/weights.bin"):
        pack(config(), path=[str(home)])


def test_the_pins_are_what_raydistill_needs_and_ray_is_the_clusters() -> None:
    pins = {each.name: str(each.specifier) for each in map(Requirement, pinned_requirements())}
    assert {"torch", "transformers", "pydantic", "typing-extensions"} <= set(pins)
    assert "quadprog" in pins  # of an extra that is asked for
    assert {"ray", "raydistill", "pytest", "ruff"}.isdisjoint(pins)
    assert all(version.startswith("==") and "+" not in version for version in pins.values())


def test_a_checkout_goes_along_as_a_wheel_would_hold_it(tmp_path: Path) -> None:
    environment = runtime_environment(tmp_path, install=False)
    [module] = map(Path, environment["py_modules"])
    assert (module / "cli.py").is_file() and (module / "recipes" / "demo.yaml").is_file()
    assert (module / "search_spaces" / "smoke.yaml").is_file()
    assert not list(module.rglob("__pycache__"))
    assert "pip" not in environment and SUBMITTED_BY not in environment["env_vars"]


def test_an_installed_one_has_to_be_the_same_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "own_package", lambda: None)
    environment = runtime_environment(tmp_path, install=True)
    assert "py_modules" not in environment
    assert environment["env_vars"][SUBMITTED_BY] == raydistill.__version__
    assert environment["pip"]["packages"][0] == f"raydistill=={raydistill.__version__}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"address": "127.0.0.1:6379"}, "is not one of a job server; give the dashboard's"),
        ({"address": "http://127.0.0.1:1"}, "no Ray job server answers at http://127.0.0.1:1"),
        ({"out": "runs/mine"}, "--out runs/mine is relative"),
        ({"out": "file://runs/mine"}, "--out file://runs/mine is relative"),
        ({"out": f"s3://me:{AWS_KEY}@bucket/mine"}, "s3://…@bucket/mine: "),
        ({"options": ["--note", GITHUB]}, "…: a GitHub token, which the cluster would show"),
        ({"overrides": ["store.path=file://labels"]}, "store.path 'file://labels'"),
        ({"out": "s3://bucket/sweep", "space": {}}, "a URL, and the trials of a sweep share a folder"),
        ({"overrides": ["training.num_step=3"]}, "training.num_step"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        submit(settings(), **arguments, say=lambda line: None)
    text = str(caught.value)
    assert said in text and "\n" not in text and AWS_KEY not in text and GITHUB not in text


def test_a_port_where_nobody_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "FIRST_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ConfigError, match="no Ray job server answers at"):
            submit(settings(), address=f"http://127.0.0.1:{silent.getsockname()[1]}", say=lambda line: None)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigError, match=r"needs what `ray\[default\]` installs: pip install 'raydistill\[cluster\]'"):
        submit(settings(), address="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a config"),
        (["demo", "--trials", "3"], "--trials goes with --tune SPACE"),
        (["--tune", "smoke", "--again"], "--again is for a distillation"),
        (["--tune", "smoke", "training.num_step=3", "--address", "http://127.0.0.1:1"], "training.num_step"),
        (["--tune", "smoke", "training.num_steps=9", "--address", "http://127.0.0.1:1"], "no Ray job server answers"),
        (["demo", "--out", "runs/here"], "--out runs/here is relative"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raydistill.cli", "submit", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("packed")]
    assert line.startswith("error: ") and said in line


class Server:
    """A job server's answers, one a call; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def get_job_info(self, job: str) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self._log, status = answer
        return SimpleNamespace(status=SimpleNamespace(value=status, is_terminal=lambda: status != "RUNNING"))

    def get_job_logs(self, job: str) -> str:
        return str(self._log)


def test_a_broken_tunnel_repeats_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "PAUSE_S", 0.0)
    server = Server(("one\n", "RUNNING"), OSError("broken"), OSError("broken"), ("one\ntwo\n", "RUNNING"),
                    ("one\ntwo\nend\n", "SUCCEEDED"))  # fmt: skip
    shown: list[str] = []
    follow(server, Job("x", "http://there"), shown.append)
    assert "".join(shown) == "one\ntwo\nend\n"


def test_a_server_that_is_gone_is_told_with_how_to_find_the_job_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "PAUSE_S", 0.0)
    server = Server(*[OSError("broken")] * job_server.TRIES)
    with pytest.raises(RaydistillError, match=r"lost sight of job x .*ray job logs --follow --address http://there x"):
        follow(server, Job("x", "http://there"), lambda text: None)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", -9, 137), ("STOPPED", None, 143)],
)
def test_the_exit_code_is_the_commands(status: str, code: int | None, told: int) -> None:
    info = SimpleNamespace(status=SimpleNamespace(value=status), driver_exit_code=code, message="")
    told_of = ended(Job("x", "http://there"), info)
    assert (told_of.exit_code, told_of.status) == (told, status)


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (1, "…\n/usr/bin/python: No module named raydistill", "has no raydistill; install it there, or submit with"),
        (None, "Failed to set up runtime environment.\nno room", "did not run to its end: Failed to set up runtime"),
    ],
)
def test_a_job_that_never_began_is_an_error_of_one_line(code: int | None, message: str, said: str) -> None:
    info = SimpleNamespace(status=SimpleNamespace(value="FAILED"), driver_exit_code=code, message=message)
    with pytest.raises(RaydistillError, match=said) as caught:
        ended(Job("x", "http://there"), info)
    assert "\n" not in str(caught.value)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """As within a submitted job."""
    monkeypatch.delenv(RUNS, raising=False)
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {}, "metadata": {}}))
    return monkeypatch.setenv


def test_runs_lie_in_runs_or_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNS, raising=False)
    assert place_to_write(None, "digits") == Path("runs/digits")
    assert place_to_write("here", "digits") == Path("here")
    monkeypatch.setenv(RUNS, "/shared/runs")
    assert place_to_write(None, "digits") == Path("/shared/runs/digits")
    assert place_to_write("here", "digits") == Path("here")


def test_a_job_writes_nothing_beside_itself(job: Callable[[str, str], None]) -> None:
    for out in (None, "runs/mine"):
        with pytest.raises(ConfigError, match=r"--out /shared/runs/digits, or set RAYDISTILL_RUNS"):
            place_to_write(out, "digits")
    assert place_to_write("/shared/mine", "digits") == Path("/shared/mine")
    job(RUNS, "/shared/runs")
    assert place_to_write(None, "digits") == Path("/shared/runs/digits")


def test_a_job_has_no_data_beside_itself(job: Callable[[str, str], None]) -> None:
    data = {"source": "imagefolder", "path": "data/digits"}
    with pytest.raises(ConfigError, match=r"being relative: tasks.digits.data.path 'data/digits'; copy it to storage"):
        as_config(settings(tasks={"digits": {"domain": "vision", "data": data}}))
    as_config(settings())


def test_a_job_of_another_version_is_refused(job: Callable[[str, str], None]) -> None:
    job(SUBMITTED_BY, "9.9.9")
    with pytest.raises(ConfigError, match=r"raydistill 9.9.9 submitted this job and the cluster has"):
        as_config(settings())


def test_outside_a_job_relative_is_relative_to_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB, raising=False)
    data = {"source": "imagefolder", "path": "data/digits"}
    there = as_config(settings(tasks={"digits": {"domain": "vision", "data": data}}))
    assert there.tasks["digits"].data.path == os.path.abspath("data/digits")  # noqa: PTH100
