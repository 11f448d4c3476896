"""What the order of a run's data is a function of, as a file: `data_plan.json` beside checkpoints and in exported models.

With it alone one can say which tokens each step reads, without the tokens. A run that began with another's weights, or that
branched from one of its checkpoints, carries that one's plans too, so a final model knows everything that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from l3_platform.settings import Stage
from l3_platform.train.branch import Position, read_origin
from l3_platform.train.data_order import DataOrder, Step, step_at, whole_units
from l3_platform.train.interleave import Mixture
from l3_platform.train.job import TrainJob, write_text
from l3_platform.train.schedule import Schedule

FILE = "data_plan.json"


class Stream(BaseModel):
    """The token files of a domain: how many tokens, and a digest of their names and sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int
    digest: str

    @classmethod
    def of(cls, files: Iterable[tuple[str, int]]) -> Stream:
        """From the files' names and tokens, in order; files without a token do not count."""
        listed = [[name, tokens] for name, tokens in files if tokens]
        digest = hashlib.blake2b(json.dumps(listed).encode(), digest_size=16).hexdigest()
        return cls(tokens=sum(tokens for _, tokens in listed), digest=digest)


class DataPlan(BaseModel):
    """The data of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(description="fingerprint of the job")
    schedule: Schedule
    seed: int
    total_tokens: int
    ramp: tuple[Stage, ...]
    mixtures: tuple[Mixture, ...]
    streams: Mapping[str, Stream]
    start: int = Field(default=0, description="tokens behind a branch where it begins")
    start_step: int = Field(default=0, description="and steps")
    order_start: int = Field(
        default=0, description="token from which this order holds; that of its parent, where a branch goes on in it"
    )
    order_before: Mapping[str, int] = Field(default={}, description="tokens of each domain read before it")

    @classmethod
    def of(cls, job: TrainJob, fingerprint: str) -> DataPlan:
        """Of a run that begins at nothing."""
        streams = {
            domain: Stream.of((os.path.basename(file), os.path.getsize(file) // 4) for file in files)
            for domain, files in sorted(job.data.items())
        }
        return cls(
            run=fingerprint, schedule=job.schedule, seed=job.seed, total_tokens=job.total_tokens, ramp=job.ramp,
            mixtures=job.mixtures, streams=streams,
        )  # fmt: skip

    def branched(self, parent: DataPlan, at: Position) -> DataPlan:
        """As a branch of `parent`: in its order where nothing of that changes, else in one that begins where it had come to."""
        run = {"start": at.tokens, "start_step": at.step}
        if _order(self, at.tokens) == _order(parent, at.tokens):
            inherited = ("mixtures", "order_start", "order_before")
            return self.model_copy(update=run | {name: getattr(parent, name) for name in inherited})
        same = {domain for domain, stream in parent.streams.items() if self.streams.get(domain) == stream}
        read = {domain: tokens for domain, tokens in parent.order().read_until(at.tokens).items() if domain in same}
        return self.model_copy(update=run | {"order_start": at.tokens, "order_before": read})

    @property
    def phase(self) -> str:
        if self.schedule == "linear_to_zero":
            return "annealing"
        return "continued pre-training" if self.start else "pre-training"

    @property
    def unit(self) -> int:
        return max(stage.seq_len for stage in self.ramp)

    @property
    def tokens(self) -> int:
        """Behind the run at its end, a branch's parents' included: whole sequences of the longest length."""
        return whole_units(self.ramp, self.total_tokens, self.start)

    @property
    def legs(self) -> list[tuple[int, Mixture]]:
        """The mixtures that the run comes to, and the token from which each holds in it."""
        held = [(max(mixture.from_tokens, self.start), mixture) for mixture in self.mixtures]
        following = [start for start, _ in held[1:]]
        return [(start, mixture) for (start, mixture), end in zip(held, [*following, self.tokens], strict=True) if start < end]

    @property
    def last_step(self) -> int:
        """Steps are counted from 1, as in the ledger and in the names of checkpoints."""
        step = self.step_at(self.tokens - 1)
        assert step is not None
        return step.index + 1

    def order(self) -> DataOrder:
        sizes = {domain: stream.tokens for domain, stream in self.streams.items()}
        return DataOrder(sizes, self.mixtures, self.unit, self.seed, self.order_start, self.order_before)

    def step_at(self, position: int) -> Step | None:
        return step_at(self.ramp, self.total_tokens, position, self.start_step, self.start)


def plans_of(job: TrainJob, fingerprint: str) -> tuple[DataPlan, ...]:
    """Of a job and, before it, of the model that it starts from or the run that it branches from, as far as that had come."""
    plan = DataPlan.of(job, fingerprint)
    if not job.branch_from:
        return (*(read_plans(job.init_from) if job.init_from else ()), plan)
    at = read_origin(job.branch_from).position
    *before, parent = read_plans(Path(job.branch_from).parent)
    return *before, parent.model_copy(update={"total_tokens": at.tokens}), plan.branched(parent, at)


def _order(plan: DataPlan, token: int) -> tuple[object, ...]:
    """What the order from a token on is a function of."""
    held = [mixture for mixture in plan.mixtures if mixture.from_tokens <= token][-1:]
    later = [mixture for mixture in plan.mixtures if mixture.from_tokens > token]
    shares = [(0, held[0].proportions)] + [(mixture.from_tokens, mixture.proportions) for mixture in later]
    return plan.unit, plan.seed, shares, dict(plan.streams)


def as_text(plans: tuple[DataPlan, ...]) -> str:
    return _PLANS.dump_json(plans, indent=1).decode() + "\n"


def write_plans(folder: str | Path, plans: tuple[DataPlan, ...]) -> None:
    write_text(Path(folder) / FILE, as_text(plans))


def read_plans(folder: str | Path) -> tuple[DataPlan, ...]:
    """Of a run's folder or an exported model, earliest first; empty where it tells nothing of its data."""
    path = Path(folder) / FILE
    return plans_in(path.read_bytes()) if path.exists() else ()


def plans_in(content: bytes) -> tuple[DataPlan, ...]:
    return _PLANS.validate_json(content)


_PLANS = TypeAdapter(tuple[DataPlan, ...])
