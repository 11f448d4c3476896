"""Bugs to plant: each is a mistake that somebody has made in a framework for parallel training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from l3_platform.parallel import composed, context, parallelize, pipeline
from l3_platform.parallel.batch import Batch
from l3_platform.parallel.stage import Stage
from tests.parallel import differential


@contextmanager
def planted(bug: str, rank: int) -> Iterator[None]:
    """Runs with the bug of that name, or with none."""
    if not bug:
        yield
        return
    with BUGS[bug](rank):
        yield


def _no_mask_on_one_stage(rank: int) -> Any:
    right = Stage.forward

    def wrong(self: Stage, hidden: Tensor, *, targets: Tensor, document: Tensor | None = None) -> Tensor:
        return right(self, hidden, targets=targets, document=document if self.tok_embeddings is not None else None)

    return mock.patch.object(Stage, "forward", wrong)


def _one_shard_scaled(rank: int) -> Any:
    right = differential.clip_gradients

    def wrong(model: Any, *arguments: Any) -> Tensor:
        if rank == 1:
            parallelize.local(next(p.grad for p in model.parameters() if p.dim() == 2)).mul_(1.001)
        return right(model, *arguments)

    return mock.patch.object(differential, "clip_gradients", wrong)


def _chunks_in_order(rank: int) -> Any:
    """Each rank embeds consecutive tokens, but rotates and masks them as head and tail."""

    def wrong(self: composed.Composed, inputs: Tensor, targets: Tensor, bos_id: int | None) -> Batch:
        size, here = self._mesh.cp, self._mesh.cp_rank(self._rank)
        document = None if bos_id is None else (inputs == bos_id).cumsum(dim=1)
        return Batch(inputs.chunk(size, 1)[here], targets.chunk(size, 1)[here], document)

    return mock.patch.object(composed.Composed, "_batch", wrong)


def _positions_from_zero(rank: int) -> Any:
    right = Stage._here

    def wrong(self: Stage, rotation: Tensor, document: Tensor | None, seq_len: int) -> tuple[Tensor, Tensor | None]:
        mine, mask = right(self, rotation, document, seq_len)
        return rotation[:, : mine.shape[1]], mask

    return mock.patch.object(Stage, "_here", wrong)


def _keys_without_gradient(rank: int) -> Any:
    """What torch.distributed.nn.functional.all_gather comes to on gloo: other ranks' queries teach no key."""
    right = context._all_gather

    def wrong(tensor: Tensor, dim: int, group: Any) -> Tensor:
        parts = list(right(tensor.detach(), dim, group).chunk(group.size(), dim))
        parts[group.rank()] = tensor
        return torch.cat(parts, dim)

    return mock.patch.object(context, "_all_gather", wrong)


def _last_micro_batch_lost(rank: int) -> Any:
    right = pipeline.Pipeline.forward_backward

    def wrong(self: pipeline.Pipeline, batch: Batch, rows: int) -> Tensor:
        targets = batch.targets.clone()
        targets[-rows:] = -100
        return right(self, Batch(batch.tokens, targets, batch.document), rows)

    return mock.patch.object(pipeline.Pipeline, "forward_backward", wrong)


def _mean_over_micro_batches(rank: int) -> Any:
    right = pipeline._CLASSES["1f1b"]

    def wrong(stages: Any, **options: Any) -> Any:
        return right(stages, **options | {"scale_grads": True})

    return mock.patch.dict(pipeline._CLASSES, {"1f1b": wrong})


def _loss_counted_on_every_rank(rank: int) -> Any:
    return mock.patch.object(composed.Composed, "_share", lambda self, nats: nats)


def _norm_of_one_stage(rank: int) -> Any:
    right = differential.clip_gradients
    return mock.patch.object(differential, "clip_gradients", lambda model, scale, most, group: right(model, scale, most))


BUGS: dict[str, Callable[[int], Any]] = {
    "no mask on one stage": _no_mask_on_one_stage,
    "one shard's gradient scaled": _one_shard_scaled,
    "chunks in order": _chunks_in_order,
    "positions from zero": _positions_from_zero,
    "keys without gradient": _keys_without_gradient,
    "last micro-batch lost": _last_micro_batch_lost,
    "mean over micro-batches": _mean_over_micro_batches,
    "loss counted on every rank": _loss_counted_on_every_rank,
    "norm of one stage": _norm_of_one_stage,
}
