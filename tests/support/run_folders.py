"""Run folders as a distillation has them, once nothing has refused it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from raydistill.commands.run_folder import RunFolder, open_run
from raydistill.config.models import Config


@contextlib.contextmanager
def begun(config: Config, out: str | Path | None, again: bool = False) -> Iterator[RunFolder]:
    """The folder, for as long as the block lasts; where all is done but some copies, as it is."""
    with open_run(config, out, again) as folder:
        if not folder.only_unsent:
            folder.begin(config)
        yield folder
