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
from l3_platform.settings import Settings, Stage, home
from l3_platform.store import Dataset, Writer, files
from l3_platform.tokens.build import vocabulary
from l3_platform.train.branch import complete, read_origin
from l3_platform.train.job import TrainingError, TrainJob, TrainResult
from l3_platform.train.streams import local_streams, shares_of

Built = tuple[Sequence[str], Mapping[str, Any]]
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
    job = TrainJob.from_settings(
        settings.train,
        **places(out),
        **common(plan, token_shards[0], tokenizer[0]),
        **tracked.fields,
        shares=shares_of(data_mix[0], "pretrain"),
        total_tokens=plan.total_tokens,
        decay_tokens=round(settings.train.decay_share * plan.total_tokens),
        ramp=plan.ramp,
        learning_rate=plan.learning_rate,
        warmup_tokens=plan.warmup_tokens,
    )
    result = launch(job)
    return put_model(Path(job.output), out, {"loss.json": _curve(job)}), metrics_of(result)


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
    batch = -(-plan.ramp[-1].batch_tokens // seq_len) * seq_len
    tokens = max(settings.anneal.tokens, batch * settings.anneal.checkpoints)
    job = TrainJob.from_settings(
        settings.train,
        **places(out),
        **common(plan, token_shards[0], tokenizer[0]),
        **tracked.fields,
        shares=shares_of(data_mix[0], "anneal"),
        branch_from=parent,
        total_tokens=read_origin(parent).position.tokens + tokens,
        ramp=(Stage(batch_tokens=batch, seq_len=seq_len),),
        schedule="linear_to_zero",
        learning_rate=plan.learning_rate * settings.train.min_learning_rate_ratio,  # goes on where the schedule ended
        warmup_tokens=0,
        held_out_seq_len=short_length(plan),
        checkpoint_every_tokens=tokens // settings.anneal.checkpoints // batch * batch,
        keep_checkpoints=settings.anneal.checkpoints,
        average_last=settings.anneal.checkpoints,
    )
    result = launch(job)
    return put_model(Path(job.output), out, {"loss.json": _curve(job)}), metrics_of(result)


def places(out: Writer, run: str = "") -> dict[str, str]:
    """Where a run keeps its checkpoints: under the identity of the dataset that it leads to, so a changed setting never
    resumes an old run. `run` names one of several."""
    folder = _checkpoints(out.asset, out.folder) / run
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
    }


def short_length(plan: TrainingPlan) -> int:
    """The sequence length of pre-training, at which held-out losses of all its descendants are compared."""
    return max(stage.seq_len for stage in plan.ramp)


def reached(long_context: Dataset, pretrained: Dataset) -> tuple[int, str]:
    """The sequence length that the long-context stages arrived at, and the checkpoint to go on from."""
    metrics = long_context.manifest.metrics
    return metrics["reached"], last_checkpoint(long_context, metrics["kept"]) if metrics["kept"] else last_checkpoint(pretrained)


def last_checkpoint(trained: Dataset, run: str = "") -> str:
    """Folder of the checkpoint at the end of a run. Raises TrainingError where it is gone."""
    folder = _checkpoints(trained.manifest.asset, trained.folder) / run
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


def _checkpoints(asset: str, dataset: str) -> Path:
    return home() / "checkpoints" / f"{asset}-{dataset.rsplit('/', 1)[-1]}"


def _curve(job: TrainJob) -> bytes:
    return json.dumps(loss_curve(Path(job.folder))).encode()


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def loss_curve(folder: Path) -> dict[str, list[float]]:
    """Tokens and loss of every logged step, from the run's metrics.jsonl; no clock in it."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if line]
    names = ("tokens", "loss", "learning_rate", "grad_norm")
    return {name: [line[name] for line in lines if name in line] for name in names}


def model_folder(trained: Dataset) -> Path:
    """The exported model of `pretrained`, `long_context` or `annealed` on this machine."""
    cache = home() / "cache" / trained.digest
    paths = [files.local_copy(files.join(trained.folder, "model", row["file"]), cache) for row in trained.read().to_pylist()]
    return paths[0].parent
