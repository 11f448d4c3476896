"""A plan of a profile, as a table for people or as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from l3_platform.model.config import ModelConfig, parameters, presets
from l3_platform.model.preset import preset
from l3_platform.planner.calibration import Observed, fitted, leave_one_out, predicted
from l3_platform.planner.layout import Layout, PlanError, Step
from l3_platform.planner.search import Candidate, Plan, describe, search
from l3_platform.settings import Settings

_HEADER = "    TP  CP  PP    DP   V rows    M kept          MFU     step   memory   of the time: kernels network bubble   binds"


def plan(settings: Settings, gpus: int = 0, seq_len: int = 0) -> Plan:
    """Of the last stage of a profile's ramp; zeros: the GPUs and the length that the profile has.

    Raises PlanError, or SettingsError for an unknown preset.
    """
    last = settings.train.ramp[-1]
    step = Step(seq_len or last.seq_len, last.batch_tokens)
    return search(_model(settings), step, gpus or settings.train.nodes * settings.train.processes_per_node, fitted())


def _model(settings: Settings) -> ModelConfig:
    if not settings.model.preset:
        raise PlanError(
            f"profile {settings.profile} leaves the model's shape to the scaling law (model.preset is empty); "
            f"name one of {', '.join(presets)} with --set model.preset=NAME"
        )
    return preset(settings, settings.tokenizer.vocab_size)


def as_text(found: Plan) -> str:
    lines = [
        f"{parameters(found.config):,} parameters, {found.step.sequences:,} sequences of {found.step.seq_len:,} tokens a step, "
        f"{found.gpus:,} H100 of 80 GB: {found.tried:,} layouts tried",
        "",
        _HEADER,
    ]
    lines += [_line(rank, candidate, found.step) for rank, candidate in enumerate(found.best, start=1)]
    best = found.best[0]
    memory = {name: f"{size / 1e9:.1f}" for name, size in _memory(best).items() if name != "peak"}
    lines += [
        "V: pipeline stages a rank; rows: sequences a micro-batch; M: micro-batches; kept: what blocks keep for the backward pass.",
        "",
        f"Best: {describe(best.layout)}, {_flops(best) / 1e12:,.0f} TFLOPs/s a GPU.",
        f"Its memory, GB a GPU: {', '.join(f'{name} {size}' for name, size in memory.items())}.",
        f"What binds: {_binds(best)}. {_memory_binds(found)}",
        "",
        _calibration(),
    ]
    return "\n".join(lines)


def as_json(found: Plan) -> str:
    return json.dumps(
        {
            "parameters": parameters(found.config),
            "gpus": found.gpus,
            "step": dataclasses.asdict(found.step),
            "layouts_tried": found.tried,
            "best": [_plain(candidate, found.step) for candidate in found.best],
            "faster_without_memory_limit": _plain(found.faster, found.step) if found.faster else None,
            "calibration": {
                "fitted": dataclasses.asdict(fitted()),
                "table_4": [
                    {"layout": dataclasses.asdict(row.layout), "mfu": row.mfu, "fitted": predicted(row, fitted()), "left_out": left}
                    for row, left in leave_one_out()
                ],
            },
        },
        indent=2,
    )


def _line(rank: int, candidate: Candidate, step: Step) -> str:
    at, times = candidate.layout, _shares(candidate)
    return (
        f"{rank:2} {at.tp:3} {at.cp:3} {at.pp:3} {at.dp:5} {at.stages:3} {at.rows:4} {at.micro_batches(step):4} {at.saving:10} "
        f"{candidate.pace.mfu:6.1%} {candidate.pace.seconds:7.2f}s {candidate.memory.peak / 1e9:5.1f} GB"
        f"{times['kernels']:23.0%} {times['network']:7.0%} {times['bubble']:6.0%}   {_binds(candidate)}"
    )


def _shares(candidate: Candidate) -> dict[str, float]:
    """Of a step's time."""
    pace = candidate.pace
    network = (pace.tensor + pace.context + pace.pipeline + pace.data) / pace.seconds
    bubble = pace.bubble / pace.seconds
    return {"kernels": 1 - network - bubble, "network": network, "bubble": bubble}


def _binds(candidate: Candidate) -> str:
    """What costs most beside the kernels."""
    pace = candidate.pace
    costs = {
        "the pipeline's bubble": pace.bubble,
        "NVLink, by tensor parallelism": pace.tensor,
        "the network, by context parallelism": pace.context,
        "the network, by pipeline sends": pace.pipeline,
        "the network, by data parallelism": pace.data,
        "memory, by what is computed again": (candidate.layout.saving == "full") * (pace.matrices + pace.attention) / 4,
    }
    cause = max(costs, key=costs.__getitem__)
    return cause if costs[cause] > 0.01 * pace.seconds else "nothing but the kernels"


def _memory_binds(found: Plan) -> str:
    if not found.faster:
        return "Memory does not: the fastest layout of all fits."
    gain = found.best[0].pace.seconds / found.faster.pace.seconds - 1
    return (
        f"Memory binds too: {describe(found.faster.layout)} would be {gain:.0%} faster, but needs "
        f"{found.faster.memory.peak / 1e9:,.0f} GB."
    )


def _calibration() -> str:
    def row(observed: Observed, left: float) -> str:
        at: Layout = observed.layout
        return (
            f"  {at.gpus:6,} GPUs, TP {at.tp}, CP {at.cp}, PP {at.pp}, DP {at.dp}, {observed.step.seq_len:,} tokens: reported "
            f"{observed.mfu:.0%}, fitted {predicted(observed, fitted()):.1%}, from the other two rows {left:.1%}"
        )

    shares = fitted()
    return "\n".join(
        [
            f"Two constants are fitted to the MFU of Llama 3's table 4: matrix products reach {shares.matrices:.0%} of 989",
            f"TFLOPs/s, attention {shares.attention:.0%}. Not fitted: H100's data sheet, links at 80 % of their nominal rate, and",
            "what is kept for the backward pass, which is what our blocks keep. No GPU was measured.",
            *(row(observed, left) for observed, left in leave_one_out()),
            "Attention's constant rests on the last row: without it, FlashAttention-2's published 35 % stands in.",
        ]
    )


def _flops(candidate: Candidate) -> float:
    """Model FLOPs a second and GPU."""
    pace = candidate.pace
    return pace.mfu * pace.peak_flops / candidate.layout.gpus


def _memory(candidate: Candidate) -> dict[str, float]:
    return {
        name: size for name, size in dataclasses.asdict(candidate.memory).items() if name != "accumulates"
    } | {"peak": candidate.memory.peak}  # fmt: skip


def _plain(candidate: Candidate, step: Step) -> dict[str, Any]:
    return {
        "layout": dataclasses.asdict(candidate.layout) | {"micro_batches": candidate.layout.micro_batches(step)},
        "mfu": candidate.pace.mfu,
        "seconds": dataclasses.asdict(candidate.pace) | {"step": candidate.pace.seconds},
        "bytes": _memory(candidate),
        "binds": _binds(candidate),
    }
