"""Effective training time: the share of the wall clock that was spent on steps that counted (Llama 3, section 3.3.4: over 90 %).

Computed from the record of a run: `metrics.jsonl` has the seconds of every step that counted, of its waits for checkpoints and
of the steps that were skipped or rolled back; `attempts.json` has what was started, repeated and lost. The parts add up to the
wall clock from the first start to the end. A pause that a person asked for is not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from l3_platform.launch.causes import Cause
from l3_platform.launch.interruptions import Attempt, Interruption, read_attempts, read_interruptions
from l3_platform.train.metrics import Row
from l3_platform.train.metrics import read as read_metrics

STEPS = "steps that counted"
PARTS: tuple[str, ...] = (
    STEPS,
    "steps skipped or rolled back",
    "steps repeated after a restart",
    "checkpoint stalls",
    "start-up",
    "until a loss or hang was noticed",
    "between attempts",
    "held-out loss and export",
)


class Span(BaseModel):
    """A stretch of the timeline, in seconds from the first start. `part` is one of PARTS; stalls are inside the steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    start: float
    end: float


class EffectiveTime(BaseModel):
    """`share` of `wall_seconds`; `parts` in seconds, which add up to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float
    wall_seconds: float
    parts: dict[str, float]
    spans: list[Span]
    attempts: int
    interruptions: list[Interruption]
    metrics: dict[str, float]  # means over the run: pace, waits, memory, MFU

    def told(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def effective_time(folder: str | Path) -> EffectiveTime | None:
    """Of the run in `folder`; None where no attempt has ended. Times of attempts that no client has settled are not known."""
    attempts = [attempt for attempt in read_attempts(folder) if attempt.ended is not None]
    if not attempts:
        return None
    rows, interruptions = read_metrics(folder), read_interruptions(folder)
    asked = {row.started for row in interruptions if row.cause is Cause.USERS_REQUEST}
    spans = _spans(attempts, asked)
    parts = dict.fromkeys(PARTS, 0.0)
    for span in spans:
        parts[span.part] += span.end - span.start
    stalls, wasted = _inside_steps(rows)
    parts[STEPS] -= stalls + wasted
    parts["checkpoint stalls"] += stalls
    parts["steps skipped or rolled back"] += wasted
    wall = sum(parts.values())
    return EffectiveTime(
        share=round(parts[STEPS] / wall, 4) if wall else 0.0,
        wall_seconds=round(wall, 3),
        parts={name: round(seconds, 3) for name, seconds in parts.items()},
        spans=spans,
        attempts=len(attempts),
        interruptions=interruptions,
        metrics=_means(rows),
    )


def _spans(attempts: Sequence[Attempt], asked: set[datetime]) -> list[Span]:
    """The timeline. `asked`: starts of attempts that ended because a person wanted it; the pause after one is cut out."""
    spans: list[Span] = []
    clock = 0.0
    for number, attempt in enumerate(attempts):
        if number and attempts[number - 1].started not in asked:
            gap = _seconds(attempts[number - 1].ended, attempt.started)
            clock = _add(spans, "between attempts", clock, gap)
        if attempt.stepping is None:  # it was lost before its first step
            clock = _add(spans, "start-up", clock, _seconds(attempt.started, attempt.ended))
            continue
        clock = _add(spans, "start-up", clock, _seconds(attempt.started, attempt.stepping))
        stepped = _seconds(attempt.stepping, attempt.last_step)
        clock = _add(spans, STEPS, clock, stepped - attempt.lost_seconds)
        clock = _add(spans, "steps repeated after a restart", clock, attempt.lost_seconds)
        finished = attempt.outcome == "finished"
        after = "held-out loss and export" if finished else "until a loss or hang was noticed"
        clock = _add(spans, after, clock, _seconds(attempt.last_step, attempt.ended))
    return spans


def _add(spans: list[Span], part: str, clock: float, seconds: float) -> float:
    end = clock + max(0.0, seconds)
    if end > clock:
        spans.append(Span(part=part, start=round(clock, 3), end=round(end, 3)))
    return end


def _inside_steps(rows: Sequence[Row]) -> tuple[float, float]:
    """Seconds of the steps that are in the record spent waiting for checkpoints; and on steps whose work was thrown away."""
    undone: set[int] = set()
    for number, row in enumerate(rows):
        if (back := row.get("rolled_back_to_step")) is not None:
            undone.update(earlier for earlier in range(number + 1) if rows[earlier]["step"] > back)
    stalls = wasted = 0.0
    before = 0.0
    for number, row in enumerate(rows):
        stall = row.get("checkpoint_seconds", 0.0)
        stalls += stall
        skipped = 1.0 if number in undone else row.get("skipped_steps", 0.0) / max(1.0, row["step"] - before)
        wasted += (row["seconds"] - stall) * skipped
        before = row["step"]
    return stalls, wasted


def _means(rows: Sequence[Row]) -> dict[str, float]:
    seconds = sum(row["seconds"] for row in rows)
    if not seconds:
        return {}
    paces = ("tokens_per_second", "tokens_per_second_per_device", "mfu")  # the last where `train.peak_flops` is set
    means = {
        **{name: sum(row[name] * row["seconds"] for row in rows) / seconds for name in paces if all(name in row for row in rows)},
        "data_wait_share": sum(row.get("data_seconds", 0.0) for row in rows) / seconds,
        "checkpoint_stall_share": sum(row.get("checkpoint_seconds", 0.0) for row in rows) / seconds,
        "peak_memory_bytes": max(row.get("peak_memory_bytes", 0.0) for row in rows),
    }
    return {name: round(value, 4) for name, value in means.items()}


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return (end - start).total_seconds() if start and end else 0.0
