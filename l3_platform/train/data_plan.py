"""What the order of a run's data is a function of, as a file: `data_plan.json` beside checkpoints and in exported models.

With it alone one can say which tokens each step reads, without the tokens. A run that began with another's weights carries
that one's plans too, so a final model knows everything that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from l3_platform.settings import Stage
from l3_platform.train.data_order import DataOrder, Step, step_at
from l3_platform.train.interleave import Mixture
from l3_platform.train.job import TrainJob, write_text

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
    schedule: Literal["cosine", "linear_to_zero"]
    seed: int
    total_tokens: int
    ramp: tuple[Stage, ...]
    mixtures: tuple[Mixture, ...]
    streams: Mapping[str, Stream]

    @classmethod
    def of(cls, job: TrainJob, fingerprint: str) -> DataPlan:
        streams = {
            domain: Stream.of((os.path.basename(file), os.path.getsize(file) // 4) for file in files)
            for domain, files in sorted(job.data.items())
        }
        return cls(
            run=fingerprint, schedule=job.schedule, seed=job.seed, total_tokens=job.total_tokens, ramp=job.ramp,
            mixtures=job.mixtures, streams=streams,
        )  # fmt: skip

    @property
    def phase(self) -> str:
        return "pre-training" if self.schedule == "cosine" else "annealing"

    @property
    def unit(self) -> int:
        return max(stage.seq_len for stage in self.ramp)

    @property
    def tokens(self) -> int:
        """Trained on in all: whole sequences of the longest length."""
        return self.total_tokens // self.unit * self.unit

    @property
    def last_step(self) -> int:
        """Steps are counted from 1, as in the ledger and in the names of checkpoints."""
        step = self.step_at(self.tokens - 1)
        assert step is not None
        return step.index + 1

    def order(self) -> DataOrder:
        sizes = {domain: stream.tokens for domain, stream in self.streams.items()}
        return DataOrder(sizes, self.mixtures, self.unit, self.seed)

    def step_at(self, position: int) -> Step | None:
        return step_at(self.ramp, self.total_tokens, position)


def plans_of(job: TrainJob, fingerprint: str) -> tuple[DataPlan, ...]:
    """Of a job and, before it, of the model that it starts from."""
    return (*(read_plans(job.init_from) if job.init_from else ()), DataPlan.of(job, fingerprint))


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
