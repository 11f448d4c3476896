"""Held-out loss a domain: summed negative log-likelihood and the number of tokens predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from l3_platform.model.llama import Llama
from l3_platform.parallel.mesh import Mesh
from l3_platform.parallel.parallel_model import ParallelModel
from l3_platform.parallel.parallelize import reshard
from l3_platform.train.ranks import Ranks
from l3_platform.train.token_stream import TokenStream


@torch.no_grad()
def held_out_losses(
    model: Llama | ParallelModel,
    files: Mapping[str, Sequence[str]],
    *,
    seq_len: int,
    bos_id: int | None = None,
    max_tokens: int = 0,
    batch_sequences: int = 16,
    ranks: Ranks | None = None,
    mesh: Mesh | None = None,
) -> dict[str, tuple[float, int]]:
    """{domain: (nats summed, tokens predicted)} over the first `max_tokens` (0: all) tokens of each domain's files.

    Windows of `seq_len` tile the stream; every token but the first of the stream is predicted once. `bos_id` masks
    attention to documents. Collective where the model is sharded: the data ranks of `mesh`, without one all `ranks`,
    share the windows of a batch.
    """
    module = model if isinstance(model, Llama) else model.module
    ranks = ranks or Ranks(0, 1, next(module.parameters()).device)
    mesh = mesh or Mesh(dp_shard=ranks.size)
    losses = {}
    for domain in sorted(files):
        stream = TokenStream(files[domain])
        length = min(len(stream), max_tokens or len(stream))
        nats = torch.zeros((), dtype=torch.float64, device=ranks.device)
        for first in range(0, max(0, length - 1), seq_len * batch_sequences * mesh.data_ranks):
            inputs, targets = _batch(stream, length, first, seq_len, batch_sequences, ranks, mesh)
            nats += model(inputs, targets, bos_id)
        losses[domain] = (float(ranks.sum(nats)), max(0, length - 1))
    if isinstance(model, Llama):
        reshard(model)
    else:
        model.reshard()
    return losses


def _batch(
    stream: TokenStream, length: int, first: int, seq_len: int, rows: int, ranks: Ranks, mesh: Mesh
) -> tuple[torch.Tensor, torch.Tensor]:
    """This data rank's windows from stream position `first` on; windows past the end predict nothing, so that every rank
    runs the model equally often. Rows that no rank needs are left out."""
    rows = min(rows, -(-(length - 1 - first) // (seq_len * mesh.data_ranks)))
    inputs = np.zeros((rows, seq_len), dtype=np.int64)
    targets = np.full((rows, seq_len), -100, dtype=np.int64)
    for row in range(rows):
        start = first + (row * mesh.data_ranks + mesh.data_rank(ranks.rank)) * seq_len
        count = min(seq_len, length - 1 - start)
        if count > 0:
            tokens = stream.read(start, count + 1)
            inputs[row, :count], targets[row, :count] = tokens[:-1], tokens[1:]
    return torch.from_numpy(inputs).to(ranks.device), torch.from_numpy(targets).to(ranks.device)
