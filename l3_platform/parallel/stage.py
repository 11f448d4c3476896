"""Consecutive parts of a Llama as a module: one pipeline stage, or all of the model where there is no pipeline."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from l3_platform.model import llama
from l3_platform.model.cpu import linear, summed_cross_entropy
from l3_platform.model.llama import Llama, in_chunks, rotary_table
from l3_platform.parallel.mesh import Mesh


class Stage(nn.Module):
    """Parts keep the names that they have in the whole model, so checkpoints know nothing of stages.

    `first` has the embedding, `last` the final norm and the output head. A stage computes this context-parallel rank's
    chunks of the sequences.
    """

    def __init__(self, model: Llama, blocks: range | list[int], *, first: bool, last: bool, mesh: Mesh, cp_rank: int) -> None:
        super().__init__()
        self.config, self.kernel = model.config, model.kernel
        self.tok_embeddings = model.tok_embeddings if first else None
        self.layers = nn.ModuleDict({str(index): model.layers[index] for index in blocks})
        self.norm = model.norm if last else None
        self.output = model.output if last else None
        self._mesh, self._cp_rank = mesh, cp_rank

    def forward(self, hidden: Tensor, *, targets: Tensor, document: Tensor | None = None) -> Tensor:
        """hidden: what the stage before gave, [batch, seq / cp / tp, d_model]; for the first the tokens,
        [batch, seq / cp].

        targets: [batch, seq / cp], -100 where nothing is predicted. document: [batch, seq] number of each token's
        document, over whole sequences; None for causal attention without a document mask. Every stage gets both from
        this rank's own reading of the data. Returns hidden states, or from the last stage [1] the summed nats in fp32.
        """
        seq_len = targets.shape[1] * self._mesh.cp
        rotation = rotary_table(seq_len, self.config.head_dim, self.config.rope_theta, targets.device, self.config.rope_scaling)
        rotation, mask = self._here(rotation, document, seq_len)
        if self.tok_embeddings is not None:
            hidden = self.tok_embeddings(hidden)
        for block in self.layers.values():
            hidden = block(hidden, rotation, mask)
        if self.norm is None:
            return hidden
        rows = llama.LOGITS_A_CHUNK * self._mesh.tp // self.config.vocab_size
        return torch.stack([in_chunks(self._chunk_loss, self.norm(hidden).flatten(0, 1), targets.flatten(), rows)])

    def _here(self, rotation: Tensor, document: Tensor | None, seq_len: int) -> tuple[Tensor, Any]:
        """Rotary table and attention mask of the positions that this rank holds."""
        if self._mesh.cp == 1:
            return rotation, self.kernel.mask(document)
        from l3_platform.parallel.context import places

        here = places(seq_len, self._cp_rank, self._mesh.cp, rotation.device)
        return rotation[:, here.queries], self.kernel.mask(document, here)

    def _chunk_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden [tokens, d_model], targets [tokens]; the nats of all of them, on every tensor-parallel rank."""
        if self.output is not None:
            logits = self.output(hidden)
        else:
            assert self.tok_embeddings is not None, "only an unpipelined stage can be tied"
            logits = linear(hidden, self.tok_embeddings.weight)
        nats = summed_cross_entropy(logits.float(), targets)
        return cast(Any, nats).to_local() if hasattr(nats, "to_local") else nats
