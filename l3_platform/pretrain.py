"""`pretrained` and `annealed` as datasets: the job is written, launched, and its model taken in whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from l3_platform.engine import Counts, Output
from l3_platform.scaling.build import read_plan
from l3_platform.scaling.plan import TrainingPlan
from l3_platform.settings import Settings, home
from l3_platform.store import Dataset, Writer, files
from l3_platform.tokens.build import vocabulary
from l3_platform.train import ledger
from l3_platform.train.data_plan import read_plans
from l3_platform.train.job import TrainJob, TrainResult, run_folder
from l3_platform.train.streams import local_streams, mixtures_of

Built = tuple[Sequence[str], Mapping[str, Any]]
CONSUMED = "consumed.json"
MODEL = pa.schema([("file", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])


@dataclass(frozen=True)
class Tracked:
    """Where a job's metrics go; empty strings: to disk only."""

    uri: str = ""
    run_id: str = ""


Launch = Callable[[TrainJob], TrainResult]


def build_pretrained(
    training_plan: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    data_mix: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
    launch: Launch,
    tracked: Tracked,
) -> Built:
    """Train what the plan says, from fresh weights, on the pre-training mix."""
    plan = read_plan(training_plan[0])
    first, *changes = mixtures_of(data_mix[0], "pretrain")
    job = TrainJob.from_settings(
        settings.train,
        **_common(plan, token_shards[0], tokenizer[0], out, tracked),
        shares=first.shares,
        mix_changes=tuple(changes),
        total_tokens=plan.total_tokens,
        ramp=plan.ramp,
        learning_rate=plan.learning_rate,
        warmup_tokens=plan.warmup_tokens,
    )
    return _taken_in(launch(job), job, out)


def build_annealed(
    pretrained: Sequence[Dataset],
    training_plan: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    data_mix: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
    launch: Launch,
    tracked: Tracked,
) -> Built:
    """From the pre-trained weights: learning rate linearly to zero on the annealing mix; the mean of its checkpoints."""
    plan = read_plan(training_plan[0])
    last = plan.ramp[-1]
    tokens = max(settings.anneal.tokens, last.batch_tokens * settings.anneal.checkpoints)
    job = TrainJob.from_settings(
        settings.train,
        **_common(plan, token_shards[0], tokenizer[0], out, tracked),
        shares=mixtures_of(data_mix[0], "anneal")[0].shares,
        total_tokens=tokens,
        ramp=(last.model_copy(update={"from_tokens": 0}),),
        schedule="linear_to_zero",
        init_from=str(model_folder(pretrained[0])),
        learning_rate=plan.learning_rate * settings.train.min_learning_rate_ratio,  # goes on where the cosine ended
        warmup_tokens=0,
        checkpoint_every_tokens=tokens // settings.anneal.checkpoints // last.batch_tokens * last.batch_tokens,
        keep_checkpoints=settings.anneal.checkpoints,
        average_last=settings.anneal.checkpoints,
        seed=settings.train.seed + 1,
    )
    return _taken_in(launch(job), job, out)


def _common(plan: TrainingPlan, token_shards: Dataset, tokenizer: Dataset, out: Writer, tracked: Tracked) -> dict[str, Any]:
    """What every job takes from the plan, the corpus and the tracker. A changed setting never resumes an old run."""
    folder = run_folder(out.asset, out.folder.rsplit("/", 1)[-1])
    words = vocabulary(tokenizer)
    return {
        "folder": str(folder),
        "output": str(folder / "model"),
        "model": plan.model,
        "data": local_streams(token_shards, "train"),
        "held_out": local_streams(token_shards, "held_out"),
        "bos_id": words.bos_id,
        "eos_id": words.eos_id,
        "mlflow_tracking_uri": tracked.uri,
        "mlflow_run_id": tracked.run_id,
    }


def _taken_in(result: TrainResult, job: TrainJob, out: Writer) -> Built:
    """The final model's files go beside the dataset's shard, which lists and digests them; the loss curve goes in too."""
    rows = []
    for path in sorted(Path(job.output).iterdir()):
        files.upload(path, files.join(out.folder, "model", path.name))
        rows.append({"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)})
    table = pa.Table.from_pylist(rows, schema=MODEL)
    told = {"loss.json": loss_curve(Path(job.folder)), CONSUMED: consumed(job)}
    contents = {name: json.dumps(content).encode() for name, content in told.items()}
    out.put("part-00000", Output(table, Counts.annotated(table.num_rows), files=contents))
    metrics = {
        "steps": result.steps,
        "tokens": result.tokens,
        "parameters": result.parameters,
        "flops": result.flops,
        "train loss": result.loss,
        "held-out loss": result.held_out_loss,
        "checkpoints averaged": result.averaged,
    }
    return ["part-00000"], metrics


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def loss_curve(folder: Path) -> dict[str, list[float]]:
    """Tokens and loss of every logged step, from the run's metrics.jsonl; no clock in it."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if line]
    names = ("tokens", "loss", "learning_rate", "grad_norm")
    return {name: [line[name] for line in lines if name in line] for name in names}


def consumed(job: TrainJob) -> list[dict[str, Any]]:
    """What the run was fed, counted from its ledger: of each mixture that it reached, the shares that were planned and the
    tokens of each domain. A step that a change falls into counts to the mixture after it, and the interleaving is off by up
    to three units: a domain's share is met within `slack` tokens."""
    plan = read_plans(job.folder)[-1]
    begun = [(step, mixture) for mixture in plan.mixtures if (step := plan.step_at(mixture.from_tokens))]
    bounds = [*(step.index for step, _ in begun[1:]), plan.last_step]
    fed = ledger.consumed(job.folder, list(job.data), bounds)
    return [
        {
            "from_tokens": step.start,
            "shares": dict(mixture.shares),
            "tokens": tokens,
            "slack": 3 * plan.unit + max(0, mixture.from_tokens - step.start),
        }
        for (step, mixture), tokens in zip(begun, fed, strict=True)
    ]


def tokens_seen(trained: Dataset) -> dict[str, int]:
    """Tokens of each domain that a run of `pretrained` or `annealed` was fed."""
    legs = json.loads(files.read(trained.file(CONSUMED)))
    return {domain: sum(leg["tokens"][domain] for leg in legs) for domain in legs[0]["tokens"]}


def model_folder(trained: Dataset) -> Path:
    """The exported model of `pretrained` or `annealed` on this machine."""
    cache = home() / "cache" / trained.digest
    paths = [files.local_copy(files.join(trained.folder, "model", row["file"]), cache) for row in trained.read().to_pylist()]
    return paths[0].parent
