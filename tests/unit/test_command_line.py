"""The command line answers at once: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import raydistill
from raydistill.config.loader import list_recipes

HEAVY = "{'torch', 'ray', 'transformers', 'datasets', 'numpy', 'matplotlib'}"


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    result = run("-c", f"import sys, raydistill; print({HEAVY} & set(sys.modules))")
    assert (result.stdout.strip(), result.stderr) == ("set()", "")


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    result = run(
        "-c",
        "import sys\nfrom raydistill.cli import app\n"
        f"app(['--help'], standalone_mode=False)\nprint('loaded', {HEAVY} & set(sys.modules))",
    )
    assert result.stdout.strip().endswith("loaded set()"), result.stderr
    for command in ("teach", "label", "distill", "evaluate", "report", "recipes"):
        assert f"\n  {command}" in result.stdout


def test_a_config_mistake_is_found_before_anything_heavy_is_loaded() -> None:
    result = run(
        "-c",
        "import sys, raydistill\n"
        "try:\n    raydistill.load_config('demo', ['distill.temperatur=1'])\n"
        f"except raydistill.ConfigError:\n    print({HEAVY} & set(sys.modules))",
    )
    assert result.stdout.strip() == "set()"


def test_version_is_printed() -> None:
    result = run("-m", "raydistill.cli", "--version")
    assert (result.returncode, result.stdout) == (0, f"raydistill {raydistill.__version__}\n")


def test_recipes_are_listed() -> None:
    result = run("-m", "raydistill.cli", "recipes")
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == sorted(list_recipes())


@pytest.mark.parametrize(
    "arguments",
    [["distil"], ["distill"], ["distill", "demo", "--sedes", "2"], ["distill", "demo", "--seeds", "0"],
     ["distill", "nothing"], ["report", "nothing"]],
    ids=" ".join,
)  # fmt: skip
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    result = run("-m", "raydistill.cli", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_list_of_recipes_can_be_asked_for_after_a_recipe_was_loaded() -> None:
    raydistill.load_config("demo")
    assert "demo" in raydistill.list_recipes()


def test_every_public_name_exists() -> None:
    for name in raydistill.__all__:
        assert getattr(raydistill, name) is not None
    assert not hasattr(raydistill, "no_such_thing")
