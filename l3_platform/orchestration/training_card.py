"""What a card says of a training's time: a timeline, where the wall clock went, and every interruption with its cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from l3_platform.launch.causes import PAPER_COUNTS, Cause
from l3_platform.launch.effective_time import PARTS, STEPS, EffectiveTime
from l3_platform.launch.interruptions import Interruption
from l3_platform.orchestration.card import Card, new_figure, png

MOST_LABELS = 8  # of causes on the timeline; all are in the table
NOTE = "training"  # of `cost.json`, which lies beside a dataset and outside its identity
COLORS = dict(zip(PARTS, ("#2f6f9f", "#d1a93a", "#c9792b", "#7a5c99", "#b8b8b8", "#a2485d", "#e3e3e3", "#9db8cc"), strict=True))


def training_card(cost: Mapping[str, Any]) -> Card:
    """Of a dataset's cost: empty where no training has told its time. Several jobs are shown one below the other."""
    jobs = times_of(cost)
    if not jobs:
        return Card()
    rows = [row for one in jobs.values() for row in one.interruptions]
    wall = sum(one.wall_seconds for one in jobs.values())
    samples = {"interruptions": interruption_table(rows)}
    if rows:
        samples["causes"] = cause_table(rows)
    return Card(
        samples=samples,
        facts={
            "effective training time": round(sum(one.parts[STEPS] for one in jobs.values()) / wall, 4) if wall else 0.0,
            "attempts": sum(one.attempts for one in jobs.values()),
            **{f"{name}: {key}": value for name, one in jobs.items() for key, value in one.metrics.items()},
        },
        charts={"where the time went": timeline(jobs)},
    )


def times_of(cost: Mapping[str, Any]) -> dict[str, EffectiveTime]:
    """Job to its time, in the order in which they ran."""
    return {name: EffectiveTime.model_validate(told) for name, told in cost.get(NOTE, {}).items()}


def interruption_table(rows: Sequence[Interruption]) -> pa.Table:
    columns = ("attempt", "cause", "planned", "lost at", "down", "step", "steps lost", "evidence")
    plain = [
        (row.attempt, str(row.cause), row.planned, f"{row.lost:%Y-%m-%d %H:%M:%S}", _down(row.lost, row.restarted), row.step,
         row.steps_lost, row.evidence)
        for row in rows
    ]  # fmt: skip
    return pa.table({name: [line[place] for line in plain] for place, name in enumerate(columns)})


def cause_table(rows: Sequence[Interruption]) -> pa.Table:
    """Causes here, the most frequent first, beside those of the paper's 54 days (table 5, by counts)."""
    found, paper = Counter(row.cause for row in rows), sum(PAPER_COUNTS.values())
    causes: list[Cause] = [cause for cause, _ in found.most_common()]
    return pa.table(
        {
            "cause": [str(cause) for cause in causes],
            "here": [found[cause] for cause in causes],
            f"Llama 3, of {paper}": [str(PAPER_COUNTS.get(cause, "not in the table")) for cause in causes],
        }
    )


def timeline(jobs: Mapping[str, EffectiveTime]) -> bytes:
    """A bar a job from its first start to its end, each interruption marked with its cause, and the parts in per cent below."""
    figure, axes = new_figure(height=1.2 + 0.75 * len(jobs), width=7.2)
    for place, one in enumerate(jobs.values()):
        stretches = [(span.start, span.end - span.start) for span in one.spans]
        axes.broken_barh(stretches, (place - 0.25, 0.5), facecolors=[COLORS[span.part] for span in one.spans])
        ends = _attempt_ends(one)
        for row, at in zip(one.interruptions, ends, strict=False):
            axes.plot(at, place - 0.32, marker="v", color="#333333", markersize=4)
            if len(one.interruptions) <= MOST_LABELS:
                axes.annotate(str(row.cause), (at, place - 0.37), fontsize=6, ha="center", va="bottom")
        shares = ", ".join(
            f"{part} {seconds / one.wall_seconds:.1%}" for part, seconds in one.parts.items() if seconds >= 0.005 * one.wall_seconds
        )
        axes.annotate(_wrapped(shares), (0, place + 0.3), xytext=(3, 0), textcoords="offset points", fontsize=6, va="top")
    axes.set_yticks(
        range(len(jobs)),
        [f"{name.rpartition('-')[0] or name}\n{one.share:.0%} effective" for name, one in jobs.items()],
        fontsize=7,
    )
    axes.set_ylim(len(jobs) - 0.2, -0.75)
    axes.set_xlabel("seconds from the first start, pauses that were asked for left out", fontsize=7)
    shown = [part for part in PARTS if any(span.part == part for one in jobs.values() for span in one.spans)]
    keys = [axes.barh(0, 0, color=COLORS[part]) for part in shown]
    figure.legend(keys, shown, loc="outside upper center", ncols=3, fontsize=7, frameon=False)
    return png(figure)


def _attempt_ends(one: EffectiveTime) -> list[float]:
    """Seconds at which attempts were lost: where a start-up follows, or nothing."""
    starts = [number for number, span in enumerate(one.spans) if span.part == "start-up"]
    ends = []
    for begin, following in zip(starts, [*starts[1:], len(one.spans)], strict=True):
        own = [span for span in one.spans[begin:following] if span.part != "between attempts"]
        ends.append(own[-1].end)
    return ends


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 110))


def _down(lost: datetime, restarted: datetime | None) -> str:
    return f"{(restarted - lost).total_seconds():.1f} s" if restarted else "for good"
