"""What one data rank reads of a step, as each of the ranks that compute on it together sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from l3_platform.model.attention import document_numbers
from l3_platform.parallel.mesh import Mesh


@dataclass(frozen=True)
class Batch:
    """tokens, targets: [rows, seq / cp], the chunks of this context-parallel rank. document: [rows, seq] number of each
    token's document, over whole sequences, or None."""

    tokens: Tensor
    targets: Tensor
    document: Tensor | None

    def parts(self, rows: int) -> Iterator[Batch]:
        """Micro-batches of `rows` sequences, the last one smaller where they do not come out even."""
        for start in range(0, len(self.tokens), rows):
            piece = slice(start, start + rows)
            document = None if self.document is None else self.document[piece]
            yield Batch(self.tokens[piece], self.targets[piece], document)

    def padded(self, rows: int) -> Batch:
        """With rows added that predict nothing."""
        missing = rows - len(self.tokens)
        if missing <= 0:
            return self
        extra = [pad(t, (0, 0, 0, missing), value=v) for t, v in ((self.tokens, 0), (self.targets, -100))]
        document = None if self.document is None else pad(self.document, (0, 0, 0, missing))
        return Batch(extra[0], extra[1], document)

    def others(self) -> dict[str, Tensor]:
        """The keyword arguments of `Stage.forward`."""
        return {"targets": self.targets} | ({} if self.document is None else {"document": self.document})


def batch_for(inputs: Tensor, targets: Tensor, bos_id: int | None, mesh: Mesh, cp_rank: int) -> Batch:
    """A rank's part of whole sequences, [rows, seq] each; documents begin at `bos_id`, and are not kept apart without."""
    document = None if bos_id is None else document_numbers(inputs, bos_id)
    if mesh.cp == 1:
        return Batch(inputs, targets, document)
    from l3_platform.parallel.context import positions

    here = positions(inputs.shape[1], cp_rank, mesh.cp).to(inputs.device)
    return Batch(inputs[:, here], targets[:, here], document)
