"""Benchmarks are run by hand: what they import from the package and from one another has to be there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2] / "benchmarks"
CODE = """
import pathlib, runpy, sys
for script in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    sys.path[0] = sys.argv[1]  # as if it were called
    runpy.run_path(str(script), run_name="looked at")
    print(script.stem)
"""


def test_every_benchmark_finds_all_that_it_imports() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(HERE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10
