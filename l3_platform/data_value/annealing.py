"""A half-trained model, and branches of it annealed to zero: on the default mix, and on 30 % of a candidate set beside it.

Llama 3, section 3.1.3. The model stays at its peak rate until the branches leave it, so it has forgotten nothing that a
decay would have to teach again, and one model serves every set and seed.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from l3_platform.engine import Counts, Output
from l3_platform.model.config import ModelConfig
from l3_platform.pretrain import told_of
from l3_platform.scaling import mixture_runs
from l3_platform.scaling.mixture_runs import as_row
from l3_platform.scaling.proxy import WARMUP_SHARE, Corpus, failed, proxy_job, shape_and_tokens
from l3_platform.settings import Settings, SettingsError
from l3_platform.train.branch import read_origin
from l3_platform.train.job import TrainingError, TrainJob, TrainResult

DEFAULT = "default"  # the mixture that every candidate set is compared with
CANDIDATE = "candidate"  # beside the domains, in a branch's data
TRUNK = "half_trained"
RUNS = pa.schema(
    [
        *mixture_runs.RUNS,  # shares of the domains, the candidate's left out
        ("share_candidate", pa.float64()),
        ("tokens_before", pa.int64()),  # behind the model where it branched
    ]
)


def trunk_job(folder: str, shares: Mapping[str, float], corpus: Corpus, settings: Settings, vocab_size: int) -> TrainJob:
    """Half of a training at the peak rate, whole batches of it. Raises SettingsError where that is not one batch."""
    asked, batch = settings.data_value, settings.scaling.batch_tokens
    model, whole = shape_and_tokens(asked.layers, asked.budget, settings, vocab_size)
    half = whole // 2 // batch * batch
    if not half:
        raise SettingsError(
            f"setting data_value.budget: half of {asked.budget:.3g} FLOPs is not one batch of a model of {asked.layers} layer(s); "
            "raise it"
        )
    return proxy_job(
        folder, model, shares, half, corpus, settings, seed=settings.train.seed,
        held_out_tokens=settings.mixture.held_out_tokens, schedule="wsd", warmup_tokens=int(WARMUP_SHARE * half),
        checkpoint_every_tokens=settings.train.checkpoint_every_tokens or half, keep_checkpoints=1,
    )  # fmt: skip


def run_trunk(job: TrainJob) -> Output:
    """Train it in this process, from its newest checkpoint where there is one: a row of RUNS, what `map_shards` runs.

    Without it there is nothing to branch from: what makes it diverge is an error.
    """
    from l3_platform.train.loop import train

    row = _row(TRUNK, TRUNK, job, dict(job.shares), train(job))
    return Output(pa.Table.from_pylist([row], schema=RUNS), Counts.annotated(1), files=told_of(job))


@dataclass(frozen=True)
class Branch:
    """One annealing. Those of the default mix are `kept`: the next candidate set finds them finished."""

    mixture: str
    job: TrainJob
    kept: bool = False

    @property
    def name(self) -> str:
        return f"{self.mixture}-seed-{self.job.seed}"


def branches(
    candidate: str,
    streams: Sequence[str],
    shares: Mapping[str, float],
    corpus: Corpus,
    settings: Settings,
    *,
    vocab_size: int,
    parent: str,
    shared_folder: Path,
    own_folder: Path,
) -> dict[str, Branch]:
    """Both mixtures at every seed, by name. `shares` are the default mix, `streams` the candidate's token files.

    The seeds are not the trunk's: all branches alike then read the domains in another order than it did.
    """
    asked = settings.data_value
    model, _ = shape_and_tokens(asked.layers, asked.budget, settings, vocab_size)
    mixed = {domain: (1.0 - asked.share) * share for domain, share in shares.items()} | {CANDIDATE: asked.share}
    with_candidate = dataclasses.replace(corpus, data={**corpus.data, CANDIDATE: tuple(streams)})
    found = []
    for seed in range(settings.train.seed + 1, settings.train.seed + 1 + asked.seeds):
        default = _anneal(parent, model, shares, corpus, settings, seed)
        found.append(Branch(DEFAULT, _in(shared_folder / f"default-{default.fingerprint}", default), kept=True))
        own = Branch(candidate, _anneal(parent, model, mixed, with_candidate, settings, seed))
        found.append(dataclasses.replace(own, job=_in(own_folder / own.name, own.job)))
    return {branch.name: branch for branch in found}


def run_branch(branch: Branch) -> Output:
    """Anneal in this process: a row of RUNS, what `map_shards` runs; its bytes are the same every time."""
    from l3_platform.train.loop import train

    try:
        result = train(branch.job)
    except TrainingError as error:
        return failed(RUNS, branch.name, error)
    finally:
        if not branch.kept:
            shutil.rmtree(Path(branch.job.folder).parent, ignore_errors=True)
    row = _row(branch.name, branch.mixture, branch.job, dict(branch.job.shares), result)
    return Output(pa.Table.from_pylist([row], schema=RUNS), Counts.annotated(1))


def _anneal(
    parent: str, model: ModelConfig, shares: Mapping[str, float], corpus: Corpus, settings: Settings, seed: int
) -> TrainJob:
    """Where it lies is for the caller to say."""
    tokens = read_origin(parent).position.tokens + settings.data_value.tokens
    return proxy_job(
        "", model, shares, tokens, corpus, settings, seed=seed,
        held_out_tokens=settings.mixture.held_out_tokens, schedule="linear_to_zero", branch_from=parent, warmup_tokens=0,
    )  # fmt: skip


def _in(folder: Path, job: TrainJob) -> TrainJob:
    return job.model_copy(update={"folder": str(folder / "run"), "output": str(folder / "model")})


def _row(point: str, mixture: str, job: TrainJob, shares: dict[str, float], result: TrainResult) -> dict[str, Any]:
    more = {"share_candidate": shares.pop(CANDIDATE, 0.0), "tokens_before": result.branched_at}
    return as_row(point, mixture, job.seed, shares, result) | more
