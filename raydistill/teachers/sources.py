"""Opens, in the process of a training worker, the source of soft labels that the config asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from raydistill.config.models import Config
from raydistill.soft_labels.auto import AutoSource
from raydistill.soft_labels.layers import layers_asked
from raydistill.soft_labels.source import Labeller, SoftTargetSource
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables

OpenLabeller = Callable[[], Labeller]


@dataclass(frozen=True)
class SourcePlan:
    """All that a worker needs for its soft labels; travels to it in the training plan.

    Attributes:
        ways: how to reach the teachers, `local` or `remote` or both; empty: the store knows everything.
        tables: of the store; None: nothing is kept and nothing is read.
        why_one_way: for the log, where `auto` has nothing to choose from.
    """

    config: Config
    ways: Mapping[str, OpenLabeller]
    tables: RunTables | None
    why_one_way: str = ""

    def checked(self, report: Callable[[str], None]) -> SourcePlan:
        """The same after a look at the store: where it knows every view of every row, no teacher is asked any more.

        Args:
            report: hears of damaged shards.
        """
        if self.tables is None or layers_asked(self.config.distill).keys() - self.tables.kept_layers:
            return self
        try:
            self.tables.check(report)
            return replace(self, ways={}) if self.tables.complete(report) else self
        finally:
            self.tables.close()

    def __call__(self) -> SoftTargetSource:
        """The source."""
        stream = LabelStream(
            self.config, self.config.teachers, None, self.tables, layers=layers_asked(self.config.distill)
        )
        if self.config.distill.soft_labels == "auto" and self.ways:
            return AutoSource(stream, self.ways, self.why_one_way)
        if self.ways:
            ((_, open_labeller),) = self.ways.items()
            stream.answer_through(open_labeller())
        return stream
