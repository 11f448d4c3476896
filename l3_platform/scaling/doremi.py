"""DoReMi: a proxy model's own excess loss sets the shares while it trains (Xie et al. 2023, algorithm 1).

Group distributionally robust optimisation: domains on which the proxy lags behind a reference model of the same size gain
weight by exponentiated gradient ascent; the mean of the weights over training is the mixture. It knows no target: it lifts
the domain that is worst off, where a mixture law minimises what it is told to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from l3_platform.model.export import fill_from_export
from l3_platform.model.init import initialize, whole
from l3_platform.model.llama import Llama
from l3_platform.train.data_order import DataOrder, Step, steps
from l3_platform.train.interleave import Mixture
from l3_platform.train.job import TrainingError, TrainJob
from l3_platform.train.optimizer import AdamW, clip_gradients
from l3_platform.train.schedule import learning_rate
from l3_platform.train.token_stream import TokenStream

STEP_SIZE, SMOOTHING = 1.0, 1e-3  # the paper's


def doremi_weights(job: TrainJob) -> dict[str, float]:
    """Share of each domain of `job.shares`. The reference model lies in `job.output`, trained by the same job.

    Batches hold all domains alike, whatever their shares. Raises TrainingError when the loss is not finite.
    """
    torch.set_num_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reference, proxy = (Llama(job.model).to(device) for _ in range(2))
    fill_from_export(reference, job.output, whole)
    initialize(proxy, job.seed)
    optimizer = AdamW(proxy, betas=job.betas, epsilon=job.epsilon, weight_decay=job.weight_decay)
    domains = sorted(domain for domain, share in job.shares.items() if share > 0)
    streams = {domain: TokenStream(job.data[domain]) for domain in domains}
    unit = max(stage.seq_len for stage in job.ramp)
    alike = Mixture(shares=dict.fromkeys(domains, 1.0))
    order = DataOrder({domain: len(stream) for domain, stream in streams.items()}, [alike], unit, job.seed)
    total_tokens = job.total_tokens // unit * unit

    weights = torch.full((len(domains),), 1.0 / len(domains), dtype=torch.float64)
    excess, mean, taken = torch.zeros_like(weights), torch.zeros_like(weights), 0
    for step in steps(job.ramp, job.total_tokens):
        inputs, targets, domain = _batch(order, streams, step, device)
        loss = _losses(proxy, inputs, targets, job)
        with torch.no_grad():
            lag = (loss.detach() - _losses(reference, inputs, targets, job)).clamp(min=0.0).mean(dim=1).cpu().double()
        excess = _by_domain(lag, domain, excess)
        weights = ascend(weights, excess)
        nats = (loss.mean(dim=1) * _row_weights(weights, domain).to(loss)).sum()
        nats.backward()
        norm = clip_gradients(proxy, scale=1.0, max_norm=job.gradient_clip)
        if not (math.isfinite(nats.item()) and math.isfinite(norm)):
            raise TrainingError(f"DoReMi, step {step.index + 1}: loss {nats.item()}, gradient norm {norm}")
        rate = learning_rate(
            step.start, step.tokens, schedule=job.schedule, peak=job.learning_rate, min_ratio=job.min_learning_rate_ratio,
            warmup_tokens=job.warmup_tokens, total_tokens=total_tokens,
        )  # fmt: skip
        optimizer.step(rate)
        proxy.zero_grad()
        mean, taken = mean + weights, taken + 1
    return dict(zip(domains, (mean / taken).tolist(), strict=True))


def ascend(weights: Tensor, excess: Tensor) -> Tensor:
    """One step of exponentiated gradient ascent on weights [domains] by their excess losses, then a little of the uniform."""
    raised = weights * torch.exp(STEP_SIZE * (excess - excess.max()))
    return (1.0 - SMOOTHING) * raised / raised.sum() + SMOOTHING / len(weights)


def _batch(order: DataOrder, streams: Mapping[str, TokenStream], step: Step, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs and targets [rows, seq_len], and the place in `streams` of the domain of each row."""
    pieces = [order.piece(start, step.seq_len) for start in range(step.start, step.end, step.seq_len)]
    tokens = np.stack([streams[piece.domain].read(piece.start, piece.tokens + 1) for piece in pieces]).astype(np.int64)
    domain = torch.tensor([list(streams).index(piece.domain) for piece in pieces])
    rows = torch.from_numpy(tokens).to(device)
    return rows[:, :-1], rows[:, 1:], domain


def _losses(model: Llama, inputs: Tensor, targets: Tensor, job: TrainJob) -> Tensor:
    """Negative log-likelihood [rows, seq_len], nats."""
    logits = model(inputs, None, job.bos_id if job.document_mask else None)
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def _by_domain(lag: Tensor, domain: Tensor, before: Tensor) -> Tensor:
    """Mean of `lag` [rows] over the rows of each domain; one that the batch lacks keeps what it had."""
    rows = torch.bincount(domain, minlength=len(before))
    sums = torch.zeros_like(before).index_add_(0, domain, lag)
    return torch.where(rows > 0, sums / rows.clamp(min=1), before)


def _row_weights(weights: Tensor, domain: Tensor) -> Tensor:
    """What each row counts so that a domain's mean loss counts its weight."""
    return (weights / torch.bincount(domain, minlength=len(weights)).clamp(min=1))[domain]
