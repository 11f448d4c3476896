"""The account every stage gives of its input: what came in is kept, dropped for a reason, or failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from pydantic import BaseModel, ConfigDict


class Unbalanced(AssertionError):
    """A stage lost or invented records: a bug in the stage, never a user's mistake."""


class Counts(BaseModel):
    """`records_in = kept + sum(dropped.values()) + failed`, in records of the stage's input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records_in: int = 0
    kept: int = 0
    dropped: dict[str, int] = {}
    failed: int = 0

    @property
    def balanced(self) -> bool:
        return self.records_in == self.kept + sum(self.dropped.values()) + self.failed

    @classmethod
    def annotated(cls, rows: int) -> Counts:
        """Of a stage that only annotates: every row in is a row out."""
        return cls(records_in=rows, kept=rows)

    @classmethod
    def total(cls, parts: Iterable[Counts]) -> Counts:
        records_in = kept = failed = 0
        dropped: dict[str, int] = {}
        for part in parts:
            records_in, kept, failed = records_in + part.records_in, kept + part.kept, failed + part.failed
            for reason, count in part.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        return cls(records_in=records_in, kept=kept, dropped=dict(sorted(dropped.items())), failed=failed)


@dataclass(frozen=True)
class Output:
    """What a stage makes of one shard."""

    table: pa.Table
    counts: Counts
    quarantine: pa.Table | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def check(self, place: str) -> None:
        """Raises Unbalanced, naming `place`."""
        counts = self.counts
        if not counts.balanced:
            raise Unbalanced(
                f"{place}: {counts.records_in:,} records came in, but {counts.kept:,} kept + "
                f"{sum(counts.dropped.values()):,} dropped + {counts.failed:,} failed do not add up to them"
            )
        quarantined = self.quarantine.num_rows if self.quarantine is not None else 0
        if quarantined != counts.failed:
            raise Unbalanced(f"{place}: {counts.failed:,} records failed, but {quarantined:,} are in quarantine")

    @classmethod
    def annotated(cls, table: pa.Table) -> Output:
        return cls(table, Counts.annotated(table.num_rows))
