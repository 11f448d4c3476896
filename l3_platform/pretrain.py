"""`pretrained` and `annealed` as datasets: the job is written, launched, and its model taken in whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from l3_platform.engine import Counts, Output
from l3_platform.model.config import RopeScaling
from l3_platform.scaling.build import read_plan
from l3_platform.scaling.plan import TrainingPlan
from l3_platform.settings import LongStage, Settings, Stage, Train, home
from l3_platform.store import Dataset, Writer, files
from l3_platform.tokens.build import TOKENIZER, vocabulary
from l3_platform.train import ledger
from l3_platform.train.branch import complete, read_origin
from l3_platform.train.data_plan import read_plans
from l3_platform.train.job import RESULT_FILE, TrainingError, TrainJob, TrainResult, run_folder
from l3_platform.train.schedule import learning_rate
from l3_platform.train.streams import local_streams, mixtures_of

Built = tuple[Sequence[str], Mapping[str, Any]]
CONSUMED = "consumed.json"
MODEL = pa.schema([("file", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])


@dataclass(frozen=True)
class Tracked:
    """Where a job's metrics go; empty strings: to disk only."""

    uri: str = ""
    run_id: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """Of a TrainJob."""
        return {"mlflow_tracking_uri": self.uri, "mlflow_run_id": self.run_id}


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
        **places(out),
        **common(plan, token_shards[0], tokenizer[0]),
        **tracked.fields,
        shares=first.shares,
        mix_changes=tuple(changes),
        total_tokens=plan.total_tokens,
        decay_tokens=round(settings.train.decay_share * plan.total_tokens),
        ramp=plan.ramp,
        learning_rate=plan.learning_rate,
        warmup_tokens=plan.warmup_tokens,
        horizon_tokens=settings.train.cosine_tokens,
    )
    result = launch(job)
    return put_model(Path(job.output), out, told_of(job)), metrics_of(result)


def build_annealed(
    pretrained: Sequence[Dataset],
    long_context: Sequence[Dataset],
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
    """Learning rate linearly to zero on the annealing mix, at the length that was reached; the mean of its checkpoints.

    Optimizer state and the place in the data go on from the run before.
    """
    plan = read_plan(training_plan[0])
    seq_len, parent = reached(long_context[0], pretrained[0])
    like, stage = kept_stage(long_context[0], settings), annealing_stage(plan, seq_len)
    # Checkpoints that are averaged lie equally far apart, in whole batches: `anneal.tokens` is rounded to that.
    count, batch = settings.anneal.checkpoints, stage.batch_tokens
    every = max(1, round(settings.anneal.tokens / (count * batch))) * batch
    job = TrainJob.from_settings(
        settings.train,
        **places(out),
        **common(plan, token_shards[0], tokenizer[0]) | (at_length(like, plan, settings) if like else {}),
        **tracked.fields,
        shares=mixtures_of(data_mix[0], "anneal")[0].shares,
        branch_from=parent,
        total_tokens=read_origin(parent).position.tokens + count * every,
        ramp=(stage,),
        schedule="linear_to_zero",
        learning_rate=rate_at_end(plan, settings.train),
        warmup_tokens=0,
        held_out_seq_len=short_length(plan),
        checkpoint_every_tokens=every,
        keep_checkpoints=count,
        average_last=count,
    )
    result = launch(job)
    return put_model(Path(job.output), out, told_of(job)), metrics_of(result)


def places(out: Writer, run: str = "") -> dict[str, str]:
    """Where a run keeps its checkpoints: under the identity of the dataset that it leads to, so a changed setting never
    resumes an old run. `run` names one of several."""
    folder = run_folder(out.asset, out.folder.rsplit("/", 1)[-1]) / run
    return {"folder": str(folder), "output": str(folder / "model")}


def common(plan: TrainingPlan, token_shards: Dataset, tokenizer: Dataset) -> dict[str, Any]:
    """What every job takes from the plan and the corpus."""
    words = vocabulary(tokenizer)
    return {
        "model": plan.model,
        "data": local_streams(token_shards, "train"),
        "held_out": local_streams(token_shards, "held_out"),
        "bos_id": words.bos_id,
        "eos_id": words.eos_id,
        "tokenizer": str(files.local_copy(tokenizer.file(TOKENIZER), home() / "cache" / tokenizer.digest)),
    }


def annealing_stage(plan: TrainingPlan, seq_len: int) -> Stage:
    """Batches as large as pre-training's last, in whole sequences."""
    return Stage(batch_tokens=-(-plan.ramp[-1].batch_tokens // seq_len) * seq_len, seq_len=seq_len)


def at_length(stage: LongStage, plan: TrainingPlan, settings: Settings) -> dict[str, Any]:
    """What a job at the length of a long-context stage has of its own: the model's RoPE, the mesh, and the document mask, which
    is important in continued pre-training on very long sequences (section 3.2)."""
    stretch = settings.long_context.rope_scaling
    scaling = RopeScaling(**stretch.model_dump()) if stretch else plan.model.rope_scaling
    return {"model": dataclasses.replace(plan.model, rope_scaling=scaling), "document_mask": True, **stage.degrees}


def rate_at_end(plan: TrainingPlan, train: Train) -> float:
    """Where pre-training left the learning rate, at which its descendants go on: its floor, unless the cosine is longer."""
    if train.schedule != "cosine" or not train.cosine_tokens:
        return plan.learning_rate * train.min_learning_rate_ratio
    return learning_rate(
        plan.total_tokens, 0, schedule="cosine", peak=plan.learning_rate, min_ratio=train.min_learning_rate_ratio,
        warmup_tokens=plan.warmup_tokens, total_tokens=plan.total_tokens, horizon_tokens=train.cosine_tokens,
    )  # fmt: skip


def short_length(plan: TrainingPlan) -> int:
    """The sequence length of pre-training, at which held-out losses of all its descendants are compared."""
    return max(stage.seq_len for stage in plan.ramp)


def reached(long_context: Dataset, pretrained: Dataset) -> tuple[int, str]:
    """The sequence length that the long-context stages arrived at, and the checkpoint to go on from."""
    metrics = long_context.manifest.metrics
    return metrics["reached"], last_checkpoint(long_context, metrics["kept"]) if metrics["kept"] else last_checkpoint(pretrained)


def kept_stage(long_context: Dataset, settings: Settings) -> LongStage | None:
    """Of the stages the last that passed; None where none did, and the pre-trained model was handed on."""
    metrics = long_context.manifest.metrics
    passed = (stage for stage in settings.long_context.stages if metrics["kept"] and stage.seq_len == metrics["reached"])
    return next(passed, None)


def last_checkpoint(trained: Dataset, run: str = "") -> str:
    """Folder of the checkpoint at the end of a run. Raises TrainingError where it is gone."""
    folder = run_folder(trained.manifest.asset, trained.folder.rsplit("/", 1)[-1]) / run
    found = complete(folder)
    if not found:
        raise TrainingError(
            f"{folder} holds no checkpoint of {trained.manifest.asset}, whose optimizer state is to be carried over; delete "
            f"{trained.folder} and materialize {trained.manifest.asset} again, with train.checkpoint_every_tokens above 0"
        )
    return str(found[0])


def put_model(folder: Path, out: Writer, content: Mapping[str, bytes]) -> list[str]:
    """The final model's files go beside the dataset's one shard, which lists and digests them; `content` are more files."""
    rows = []
    for path in sorted(folder.iterdir()):
        files.upload(path, files.join(out.folder, "model", path.name))
        rows.append({"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)})
    table = pa.Table.from_pylist(rows, schema=MODEL)
    out.put("part-00000", Output(table, Counts.annotated(table.num_rows), files=content))
    return ["part-00000"]


def metrics_of(result: TrainResult) -> dict[str, Any]:
    return {
        "steps": result.steps,
        "tokens": result.tokens,
        "parameters": result.parameters,
        "flops": result.flops,
        "train loss": result.loss,
        "held-out loss": result.held_out_loss,
        "checkpoints averaged": result.averaged,
    }


def told_of(job: TrainJob) -> dict[str, bytes]:
    """What a run tells of itself, as files of its dataset: the loss curve, and what it was fed."""
    told = {"loss.json": loss_curve(Path(job.folder)), CONSUMED: consumed(job)}
    return {name: json.dumps(content).encode() for name, content in told.items()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def loss_curve(folder: Path) -> dict[str, list[float]]:
    """Tokens and loss of every logged step, from the run's metrics.jsonl; no clock in it."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if line]
    names = ("tokens", "loss", "learning_rate", "grad_norm")
    return {name: [line[name] for line in lines if name in line] for name in names}


def result_of(trained: Dataset) -> TrainResult:
    """What the training of `pretrained` or `annealed` came to."""
    return TrainResult.model_validate_json(files.read(files.join(trained.folder, "model", RESULT_FILE)))


def consumed(job: TrainJob) -> list[dict[str, Any]]:
    """What the run was fed, counted from its ledger: of each mixture that it reached, the shares that were planned and the
    tokens of each domain. A step that a change falls into counts to the mixture after it, and the interleaving is off by up
    to three units: a domain's share is met within `slack` tokens."""
    plan = read_plans(job.folder)[-1]
    begun = [(step, mixture) for start, mixture in plan.legs if (step := plan.step_at(start))]
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
    """The exported model of `pretrained`, `long_context` or `annealed` on this machine."""
    cache = home() / "cache" / trained.digest
    paths = [files.local_copy(files.join(trained.folder, "model", row["file"]), cache) for row in trained.read().to_pylist()]
    return paths[0].parent
