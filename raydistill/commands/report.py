"""`raydistill report`: print a run's report and (re)draw its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raydistill.commands.folders import write_atomically
from raydistill.commands.run_folder import RunFolder, read_run
from raydistill.config.loader import dump_config
from raydistill.config.models import Config
from raydistill.errors import ConfigError, first_line
from raydistill.evaluation.html import render_html
from raydistill.evaluation.terminal import print_report


def report(run: str | Path) -> dict[str, Any]:
    """Print the before/after table of a finished run and draw report.html again.

    Args:
        run: its folder, or its URL.

    Returns:
        The content of report.json.

    Raises:
        ConfigError: no run, an unfinished one, or a report of another version.
    """
    with read_run(run) as (folder, changed):
        content = folder.read_report()
        try:
            draw(folder, content, folder.read_config())
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{folder.name_of(folder.report)} was not written by this version of raydistill "
                f"({first_line(error)}); run `raydistill distill` on the run's config.yaml with --again"
            ) from error
        changed(folder.html.name, folder.report.name)
    return content


def draw(folder: RunFolder, content: dict[str, Any], config: Config) -> None:
    """Write report.html and report.json, print the table and say where the page is."""
    write_atomically(folder.html, render_html(content, dump_config(config)))
    write_atomically(folder.report, json.dumps(content, indent=1))
    print_report(content)
    print(f"report: {folder.name_of(folder.html)}")  # noqa: T201 (the command's result)
