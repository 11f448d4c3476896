"""`long_context` as a dataset: continued pre-training in stages of growing sequence length (Llama 3, section 3.4.2).

A stage is over once (1) the held-out loss on short sequences has recovered and (2) the needle is found at every length up
to the stage's. Where one fails it trains on in extra slices, and where those run out the stages stop: the last length that
passed is kept. Each slice is a run that branches from the one before, so whatever is killed, the next start finds the
finished slices finished and resumes the one that was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from l3_platform.evaluate.needle import Encode, Finding, cells, finding, needles
from l3_platform.pretrain import (
    Built,
    Launch,
    Tracked,
    at_length,
    common,
    last_checkpoint,
    loss_curve,
    metrics_of,
    model_folder,
    places,
    put_model,
    rate_at_end,
    short_length,
)
from l3_platform.scaling.build import read_plan
from l3_platform.scaling.plan import TrainingPlan
from l3_platform.settings import LongContext, LongStage, Settings, Stage
from l3_platform.store import Dataset, Writer, files
from l3_platform.tokens.build import TOKENIZER
from l3_platform.tokens.tokenizer import encode_texts, open_tokenizer
from l3_platform.train.branch import complete, read_origin
from l3_platform.train.job import TrainJob, TrainResult
from l3_platform.train.probes import write_probes
from l3_platform.train.streams import mixtures_of

STORY, CURVE = "stages.json", "loss.json"  # files of the dataset

Track = Callable[[str], AbstractContextManager[Tracked]]  # from the name of a slice to where its metrics go


def build_long_context(
    pretrained: Sequence[Dataset],
    training_plan: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    data_mix: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
    launch: Launch,
    track: Track,
) -> Built:
    """The model of the last length that passed, which is the pre-trained one where none did; the story as a file."""
    plan, encoder = read_plan(training_plan[0]), open_tokenizer(tokenizer[0].file(TOKENIZER))
    short, stages = short_length(plan), settings.long_context.stages
    fields = common(plan, token_shards[0], tokenizer[0]) | {
        "shares": [mix for mix in mixtures_of(data_mix[0], "pretrain") if mix.from_tokens < plan.total_tokens][-1].shares,
        "schedule": "wsd",  # without a decay: the rate stays where pre-training ended
        "learning_rate": rate_at_end(plan, settings.train),
        "warmup_tokens": 0,
        "held_out_seq_len": short,
    }
    before = float(pretrained[0].manifest.metrics["held-out loss"])
    work = _Work(out, settings, plan, fields, before, lambda texts: encode_texts(encoder, texts), launch, track)
    slices: list[Slice] = []
    parent, kept = last_checkpoint(pretrained[0]), None
    for number, stage in enumerate(stages, start=1):
        slices += work.stage(stage, [short, *(one.seq_len for one in stages[:number])], parent)
        if slices[-1].failed:
            break
        kept = slices[-1]
        parent = kept.checkpoint
    facts = {
        "reached": kept.stage.seq_len if kept else short,
        "wanted": stages[-1].seq_len if stages else short,
        "kept": kept.name if kept else "",
        "tokens trained": sum(one.result.tokens for one in slices),
        **({"stopped because": slices[-1].failed} if slices and slices[-1].failed else {}),
        **({"needle": slices[-1].finding.in_words} if slices and slices[-1].finding else {}),
    }
    model = Path(kept.job.output) if kept else model_folder(pretrained[0])
    names = put_model(model, out, {STORY: _story(slices, before), CURVE: _curve(slices)})
    return names, (metrics_of(kept.result) if kept else pretrained[0].manifest.metrics) | facts


def read_story(long_context: Dataset) -> dict[str, Any]:
    """{"loss of pretrained", "chance", "slices": a row each, "needles": rows of `CELLS` of the last slice}."""
    return json.loads(files.read(long_context.file(STORY)))


@dataclass(frozen=True)
class Slice:
    """A run inside a stage. `failed` says in words why the stage is not over with it; empty where it is."""

    name: str
    stage: LongStage
    job: TrainJob
    result: TrainResult
    found: pa.Table  # CELLS
    finding: Finding | None
    failed: str

    @property
    def checkpoint(self) -> str:
        return str(complete(self.job.folder)[0])


@dataclass(frozen=True)
class _Work:
    """What all slices share: `fields` of their jobs, and the loss on short sequences that each has to recover."""

    out: Writer
    settings: Settings
    plan: TrainingPlan
    fields: dict[str, Any]
    before: float
    encode: Encode
    launch: Launch
    track: Track

    def stage(self, stage: LongStage, lengths: Sequence[int], parent: str) -> Iterator[Slice]:
        """Slices of a stage until one passes, or there may be no more."""
        recipe = self.settings.long_context
        asked = needles(
            self.fields["held_out"], self.encode, bos_id=self.fields["bos_id"], eos_id=self.fields["eos_id"],
            lengths=lengths, settings=recipe, seed=self.settings.train.seed,
        )  # fmt: skip
        for number in range(1 + recipe.extra_slices):
            name = f"{stage.seq_len}-{number}"
            probes = Path(places(self.out, name)["folder"]).with_suffix(".npz")
            write_probes(probes, [needle.probe for needle in asked])
            tokens = max(stage.seq_len, round(stage.tokens * recipe.extra_share)) if number else stage.tokens
            job = TrainJob.from_settings(
                self.settings.train,
                **places(self.out, name),
                **self.fields | at_length(stage, self.plan, self.settings),
                branch_from=parent,
                total_tokens=read_origin(parent).position.tokens + tokens,
                ramp=(Stage(batch_tokens=stage.batch_tokens, seq_len=stage.seq_len),),
                checkpoint_every_tokens=self.settings.train.checkpoint_every_tokens or tokens,  # one at the end at least
                probes=str(probes),
            )
            result = self._result(job, name)
            found = cells(asked, result.probe_nats)
            summary = finding(found, recipe.needle_choices)
            failed = "; ".join(_faults(result, found, self.before, recipe))
            done = Slice(name, stage, job, result, found, summary, failed)
            yield done
            if not failed:
                return
            parent = done.checkpoint

    def _result(self, job: TrainJob, name: str) -> TrainResult:
        """Trained now, or found finished: then there is nothing to track either."""
        done = TrainResult.read(job.output)
        if done and done.fingerprint == job.fingerprint:
            return done
        with self.track(name) as tracked:
            return self.launch(job.model_copy(update=tracked.fields))


def _faults(result: TrainResult, found: pa.Table, before: float, recipe: LongContext) -> Iterator[str]:
    """What keeps a slice from ending its stage."""
    if not result.held_out_loss <= before + recipe.short_loss_tolerance:
        yield f"the loss on short sequences is {result.held_out_loss:.4f}, was {before:.4f} (long_context.short_loss_tolerance)"
    if recipe.needle_accuracy is None:
        return
    worst = min(found.to_pylist(), key=lambda row: row["accuracy"], default=None)
    if worst is None:
        yield "no length has room for a needle"
    elif worst["accuracy"] < recipe.needle_accuracy:
        yield (
            f"at {worst['length']:,} tokens and depth {worst['depth']:.0%} {worst['found']} of {worst['trials']} needles are "
            f"found (long_context.needle_accuracy {recipe.needle_accuracy:g})"
        )


def _story(slices: Sequence[Slice], before: float) -> bytes:
    rows, loss = [], before
    for one in slices:
        rows.append(
            {
                "seq_len": one.stage.seq_len,
                "slice": one.name,
                "tokens": one.result.tokens,
                "short loss before": loss,
                "short loss after": one.result.held_out_loss,
                "needles found": one.finding.accuracy if one.finding else None,
                "worst cell": one.finding.worst if one.finding else None,
                "passed": not one.failed,
            }
        )
        loss = one.result.held_out_loss
    last = slices[-1] if slices else None
    story = {
        "chance": last.finding.chance if last and last.finding else None,
        "slices": rows,
        "needles": last.found.to_pylist() if last else [],
    }
    return json.dumps({"loss of pretrained": before, **story}).encode()


def _curve(slices: Sequence[Slice]) -> bytes:
    """Of all slices, one after the other."""
    curves = [loss_curve(Path(one.job.folder)) for one in slices]
    return json.dumps(
        {name: [value for curve in curves for value in curve[name]] for name in (curves[0] if curves else ())}
    ).encode()
