"""The training loop: one process or many, resumed from the newest complete checkpoint, stopped on request."""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l3_platform.allocator import keep_freed_memory
from l3_platform.model.attention import kernel_for
from l3_platform.model.config import parameters
from l3_platform.model.export import export_weights, fill_from_export
from l3_platform.model.init import initialize
from l3_platform.parallel.parallel_model import build
from l3_platform.parallel.parallelize import local_rows
from l3_platform.train.average import average_newest
from l3_platform.train.branch import Position, read_origin
from l3_platform.train.checkpoint import Checkpoints
from l3_platform.train.data_order import Step, steps, whole_units
from l3_platform.train.data_plan import FILE as DATA_PLAN
from l3_platform.train.data_plan import as_text, plans_of, write_plans
from l3_platform.train.held_out import held_out_losses
from l3_platform.train.job import RESULT_FILE, TrainingError, TrainingStopped, TrainJob, TrainResult
from l3_platform.train.ledger import Ledger, rewind
from l3_platform.train.meter import Meter
from l3_platform.train.metrics import Metrics
from l3_platform.train.optimizer import AdamW, gradient_norm, scale_gradients
from l3_platform.train.probes import choice_nats, read_probes
from l3_platform.train.ranks import Ranks, ranks
from l3_platform.train.rollback import roll_back
from l3_platform.train.schedule import learning_rate
from l3_platform.train.spikes import Memory, Verdict, judge
from l3_platform.train.system import SystemMetrics
from l3_platform.train.token_stream import TokenStream
from l3_platform.train.watchdog import Watchdog, record_flight

log = logging.getLogger(__name__)

# Seconds since the request to stop, or None while nobody asked.
StopRequest = Callable[[], float | None]


def train(
    job: TrainJob,
    on_step: Callable[[dict[str, float]], None] | None = None,
    stop_requested: StopRequest = lambda: None,
) -> TrainResult:
    """Trains to the end of the job and writes the final model to `job.output`; a finished job returns at once.

    `on_step` gets each row of metrics, on rank 0. Works in this process, and under torchrun in each rank. Raises
    TrainingStopped once `stop_requested`, TrainingError where going on is useless, Locked where another trainer holds
    the folder.
    """
    fingerprint = job.fingerprint
    if (finished := TrainResult.read(job.output)) and finished.fingerprint == fingerprint:
        return finished
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    if job.hang_seconds:
        record_flight()
    with ranks(needs_group=job.precision != "fp32") as here, _sole_trainer(job, here):
        run = _Run(job, fingerprint, here)
        gc.collect()
        gc.freeze()  # else each full collection walks all that was imported, in one rank while the others wait
        try:
            with run.watchdog:
                run.to_the_end(on_step, stop_requested)
            return run.finish()
        finally:
            gc.unfreeze()
            run.checkpoints.close(job.shutdown_seconds)
            if run.ledger:
                run.ledger.close()
            run.system.close()
            if run.metrics:
                run.metrics.close(run.final_metrics)


@contextmanager
def _sole_trainer(job: TrainJob, here: Ranks) -> Iterator[None]:
    """Rank 0 holds the lock of the folder; the others wait until it has it."""
    if not here.first:
        here.wait()
        yield
        return
    from l3_platform.store.lock import Lock

    # A trainer that is being stopped right now may still hold it for as long as its shutdown takes.
    with Lock(str(Path(job.folder) / "lock"), owner="training", wait_seconds=job.shutdown_seconds):
        here.wait()
        yield


class _Run:
    """What lives from the first step to the last."""

    def __init__(self, job: TrainJob, fingerprint: str, here: Ranks) -> None:
        self.job, self.here = job, here
        self.fingerprint = fingerprint
        self.bos_id = job.bos_id if job.document_mask else None
        self._seq_len = 0  # of the newest step
        self.unit = max(stage.seq_len for stage in job.ramp)
        self.parameters = parameters(job.model)
        self.start = read_origin(job.branch_from).position if job.branch_from else Position()
        self.total_tokens = whole_units(job.ramp, job.total_tokens, self.start.tokens)
        if job.branch_from and self.total_tokens <= self.start.tokens:
            raise TrainingError(
                f"{job.folder}: the job ends at {job.total_tokens:,} tokens, in whole sequences of {self.unit}, where its parent "
                f"had come to {self.start.tokens:,} already; give it more"
            )
        self.plans = plans_of(job, fingerprint)
        self.order = self.plans[-1].order()
        self.streams = {domain: TokenStream(job.data[domain]) for domain in self.order.domains}
        self.mesh = job.mesh(here.size)
        if here.first and self.mesh.pp > 1:
            self._warn_of_padding()
        if here.first:
            self._warn_of_idle_ranks()
        kernel = kernel_for(job.attention_kernel, here.device, job.model.head_dim)
        self.model = build(
            job.model, self.mesh, here.rank, device=here.device, schedule=job.schedule_of_pipeline,
            kernel=kernel, precision=job.precision,
            activation_checkpointing=job.activation_checkpointing, compile_blocks=job.compile,
        )  # fmt: skip
        self.optimizer = AdamW(self.model.module, betas=job.betas, epsilon=job.epsilon, weight_decay=job.weight_decay)
        self.checkpoints = Checkpoints(job.folder, here, fingerprint=fingerprint, keep=max(job.keep_checkpoints, job.average_last))
        if here.first:
            self.checkpoints.clear_partial()
        self.position = self._resume()
        if here.first:
            write_plans(job.folder, self.plans)
            rewind(job.folder, self.position.step)
            log.info("%s", self._introduction(type(kernel).__name__.lower()))
        here.wait()
        # Ranks that share a model read the same sequences: the first of them writes.
        data_rank, other = divmod(here.rank, self.mesh.model_ranks)
        self.ledger = None if other else Ledger(job.folder, list(job.data), self.position.step, data_rank)
        self.metrics = Metrics(job.folder, self.position.step, job.mlflow_tracking_uri, job.mlflow_run_id) if here.first else None
        self.final_metrics: dict[str, float] = {}
        self.system = SystemMetrics(job.folder)
        self.watchdog = Watchdog(job.hang_seconds, os.environ.get("L3_LOG_DIR", job.folder), here.rank)

    def to_the_end(self, on_step: Callable[[dict[str, float]], None] | None, stop_requested: StopRequest) -> None:
        job = self.job
        self.meter = Meter(job, self.here.device, self.here.size)
        for step in steps(job.ramp, job.total_tokens, self.start.step, self.start.tokens):
            if step.index < self.position.step:
                continue
            if step.start != self.position.tokens:
                raise TrainingError(
                    f"{job.folder}: step {step.index} begins at {step.start} tokens, "
                    f"but its checkpoint at {self.position.tokens}; was the ramp changed?"
                )
            rate = learning_rate(
                step.start, step.tokens, schedule=job.schedule, peak=job.learning_rate,
                min_ratio=job.min_learning_rate_ratio, warmup_tokens=job.warmup_tokens, total_tokens=self.total_tokens,
                decay_tokens=job.decay_tokens, horizon_tokens=job.horizon_tokens, branched_at=self.start.tokens,
            )  # fmt: skip
            if job.compile and self._seq_len != step.seq_len:
                torch._dynamo.reset()  # else all kernels behind the ramp's step would be of any length, which are slower
            self._seq_len = step.seq_len
            before = self.position
            loss, norm, stop = self._step(step, rate, stop_requested() is not None)
            if self.metrics and (self.position.step % job.log_every_steps == 0 or step.end == self.total_tokens):
                row = self._row(loss, rate, norm)
                self.metrics.log(row)
                if on_step:
                    on_step(row)
            every, own = job.checkpoint_every_tokens, self.start.tokens
            due = every and ((before.tokens - own) // every < (step.end - own) // every or step.end == self.total_tokens)
            if stop:
                self._stop(stop_requested, bool(due))
            if due:
                with self.meter.waiting_for("checkpoint"):
                    self._save()
            self.watchdog.step_finished()

    def finish(self) -> TrainResult:
        """The final model, its held-out losses and the result, in one rename."""
        job = self.job
        if self.here.first:
            log.info("finishing: the average, held-out losses and the export")  # on this word launch/attempts.py waits longer
        self.checkpoints.wait()
        averaged = average_newest(self.checkpoints, self.model.module, job.average_last) if job.average_last > 1 else 1
        if averaged < job.average_last:
            log.warning("%s: only %d of %d checkpoints are left to average", job.folder, averaged, job.average_last)
        length = job.held_out_seq_len or self.unit
        rows = job.ramp[-1].batch_tokens // (length * self.mesh.data_ranks)
        if job.micro_batch_tokens:  # what does not fit into a step does not fit here
            rows = min(rows, job.micro_batch_tokens // length)
        held_out = held_out_losses(
            self.model, job.held_out, seq_len=length, bos_id=self.bos_id, max_tokens=job.held_out_tokens,
            batch_sequences=max(1, rows), ranks=self.here, mesh=self.mesh,
        )  # fmt: skip
        probes = read_probes(job.probes) if job.probes else []
        tokens = self.position.tokens - self.start.tokens
        result = TrainResult(
            fingerprint=self.fingerprint,
            steps=self.position.step - self.start.step,
            tokens=tokens,
            parameters=self.parameters,
            flops=6.0 * self.parameters * tokens,
            loss=self.position.loss,
            averaged=max(1, averaged),
            held_out=held_out,
            skipped_steps=self.position.memory.skipped_steps - self.start.memory.skipped_steps,
            skipped_tokens=self.position.memory.skipped_tokens - self.start.memory.skipped_tokens,
            skipped=self.position.memory.skipped,
            rollbacks=self.position.memory.rollbacks - self.start.memory.rollbacks,
            branched_at=self.start.tokens,
            probe_nats=tuple(choice_nats(self.model, probes, self.bos_id, self.here, self.mesh)),
        )
        self.final_metrics = {f"held_out_loss/{domain}": n / t for domain, (n, t) in held_out.items() if t} | self.checkpoints.new()
        text = json.dumps(result.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
        more = {RESULT_FILE: text, DATA_PLAN: as_text(self.plans)} | self._tokenizer_files()
        export_weights(
            job.model, self.model.whole, job.output, bos_id=job.bos_id, eos_id=job.eos_id, max_seq_len=self.unit,
            extra_files=more, writer=self.here.first,
        )  # fmt: skip
        self.here.wait()
        return result

    def _tokenizer_files(self) -> dict[str, str]:
        if not self.job.tokenizer:
            return {}
        from l3_platform.tokens.hugging_face import tokenizer_files

        return tokenizer_files(Path(self.job.tokenizer).read_bytes())

    def _introduction(self, kernel: str) -> str:
        """What `auto` and the number of processes came to."""
        degrees = ", ".join(f"{name} {degree}" for name, degree in asdict(self.mesh).items() if degree > 1)
        return (
            f"{self.parameters:,} parameters in {self.job.precision}{', compiled' if self.job.compile else ''}, "
            f"attention by {kernel}, {self.here.size} x {self.here.device.type}{f' ({degrees})' if degrees else ''}, "
            f"from step {self.position.step:,}"
        )

    def _warn_of_padding(self) -> None:
        for stage in self.job.ramp:
            rows = -(-stage.batch_tokens // (stage.seq_len * self.mesh.data_ranks))
            added = self.job.schedule_of_pipeline.padding(rows, self.job.micro_batch_tokens // stage.seq_len, self.mesh.pp)
            if added:
                log.warning(
                    "%s: batches of %d tokens give a data rank %d sequences, and the pipeline adds %d that predict nothing; "
                    "lower train.pipeline_parallel or train.pipeline_micro_batches, or the number of data ranks",
                    self.job.folder, stage.batch_tokens, rows, added,
                )  # fmt: skip

    def _warn_of_idle_ranks(self) -> None:
        for stage in self.job.ramp:
            sequences = stage.batch_tokens // stage.seq_len
            if sequences < self.mesh.data_ranks:
                log.warning(
                    "%s: batches of %d tokens are %d sequences for %d data ranks, of which the others predict nothing; "
                    "start fewer processes, or raise train.tensor_parallel, context_parallel or pipeline_parallel",
                    self.job.folder, stage.batch_tokens, sequences, self.mesh.data_ranks,
                )  # fmt: skip

    def _resume(self) -> Position:
        """Fills the model: from the newest checkpoint, else from the parent's, from `init_from`, or afresh."""
        state = self._state(Position())
        if (position := self.checkpoints.load_newest(state)) is not None:
            torch.set_rng_state(state["rng"])
            self.optimizer.steps_taken = position.updates
            return position
        if self.job.branch_from:
            self.checkpoints.load_whole(state, Path(self.job.branch_from))
            torch.set_rng_state(state["rng"])
            self.optimizer.steps_taken = self.start.updates
            return self.start
        if self.job.init_from:
            fill_from_export(self.model.module, self.job.init_from, local_rows)
        else:
            initialize(self.model.module, self.job.seed, local_rows)
        return Position()

    def _state(self, position: Position) -> dict[str, Any]:
        return {
            "model": {name: p.detach() for name, p in self.model.module.named_parameters()},
            "optimizer": self.optimizer.state_dict(),
            "position": torch.tensor([position.step, position.tokens]),
            "rng": torch.get_rng_state(),
        }

    def _step(self, step: Step, rate: float, stopping: bool) -> tuple[float, float, bool]:
        """One step of data, and one update unless it is skipped. Returns the batch's mean loss, the gradient norm, and
        whether any rank was asked to stop."""
        with self.meter.waiting_for("data"):
            inputs, targets = self._batch(step)
        rows = max(1, self.job.micro_batch_tokens // step.seq_len) if self.job.micro_batch_tokens else 0
        # Nats, requests to stop, ranks whose memory grew, and the norm, rank 0's: that of others may differ in its last bit.
        facts = torch.zeros(4, dtype=torch.float64, device=self.here.device)
        facts[0] = self.model.forward_backward(inputs, targets, self.bos_id, rows)
        facts[1], facts[2] = float(stopping), float(self.meter.memory_grew())
        norm = gradient_norm(self.model.module, 1.0 / step.tokens, self.model.pipeline)
        facts[3] = norm if self.here.first else 0.0
        nats, requests, grown, norm = self.here.sum(facts).tolist()
        scale_gradients(self.model.module, 1.0 / step.tokens, norm, self.job.gradient_clip)
        loss = nats / step.tokens
        if grown:
            self.meter.compare_memory(self.here)
        verdict, memory = judge(self.position.memory, self.job, step, loss, norm, self.start.memory.rollbacks)
        if verdict == "take":
            self.optimizer.step(rate)
        for parameter in self.model.module.parameters():
            parameter.grad = None
        self.meter.step(step, skipped=verdict != "take")
        if verdict == "take":
            self.position = Position(step.index + 1, step.end, loss, memory)
            return loss, norm, requests > 0
        said = (
            f"step {step.index + 1} (tokens {step.start:,} to {step.end:,}): loss {loss}, gradient norm {norm} at "
            f"learning rate {rate:.3g}"
        )
        if verdict == "skip":
            log.warning("%s; its data is skipped", said)
            self.position = Position(step.index + 1, step.end, self.position.loss, memory)
        else:
            self._roll_back(step, memory, verdict, said)
        return loss, norm, requests > 0

    def _roll_back(self, step: Step, memory: Memory, verdict: Verdict, said: str) -> None:
        state = self._state(Position())
        origin = (Path(self.job.branch_from), self.start) if self.job.branch_from else None
        saved, self.position = roll_back(self.checkpoints, state, memory, step, verdict, said, origin)
        torch.set_rng_state(state["rng"])
        self.optimizer.steps_taken = saved.updates
        self.meter.rolled_back_to(saved.step)

    def _batch(self, step: Step) -> tuple[Tensor, Tensor]:
        """This data rank's sequences: inputs and targets [rows, seq_len]. All have equally many rows; one past the batch
        predicts nothing."""
        first, stride = self.mesh.data_rank(self.here.rank), self.mesh.data_ranks
        rows = -(-step.sequences // stride)
        inputs = np.zeros((rows, step.seq_len), dtype=np.int64)
        targets = np.full((rows, step.seq_len), -100, dtype=np.int64)
        for row, number in enumerate(range(first, step.sequences, stride)):
            piece = self.order.piece(step.start + number * step.seq_len, step.seq_len)
            tokens = self.streams[piece.domain].read(piece.start, piece.tokens + 1)
            if self.ledger:
                self.ledger.add(step.index + 1, piece)
            inputs[row], targets[row] = tokens[:-1], tokens[1:]
        return torch.from_numpy(inputs).to(self.here.device), torch.from_numpy(targets).to(self.here.device)

    def _row(self, loss: float, rate: float, norm: float) -> dict[str, float]:
        row = {
            "step": self.position.step,
            "tokens": self.position.tokens,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
        }
        return row | self.meter.row() | self.checkpoints.new() | self.system.new()

    def _save(self, regular: bool = True) -> None:
        if self.metrics:
            self.metrics.flush()
        if self.ledger:
            self.ledger.flush()
        self.checkpoints.save(self._state(self.position), self.position, regular=regular)

    def _stop(self, stop_requested: StopRequest, due: bool) -> None:
        """A last checkpoint where it fits in what is left of the shutdown; rank 0 decides for all. `due`: also without a stop."""
        left, needed = self.job.shutdown_seconds - (stop_requested() or 0.0), self.checkpoints.save_seconds
        where = f"at step {self.position.step} ({self.position.tokens:,} tokens)"
        if self.here.from_first(needed * 1.5 < left):
            self._save(regular=due)
            self.checkpoints.wait()
            raise TrainingStopped(f"{self.job.folder}: stopped on request {where}; run again to resume from there")
        raise TrainingStopped(
            f"{self.job.folder}: stopped on request {where}, with {left:.0f} s left and {needed:.0f} s needed "
            "for a checkpoint; run again to resume from the newest one"
        )
