"""What a pipeline schedule is, apart from running it: stages, their ranks and layers, micro-batches. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["1f1b", "interleaved", "zero_bubble"]


@dataclass(frozen=True)
class PipelineSchedule:
    """1F1B (Narayanan et al. 2019); interleaved 1F1B, `stages_per_rank` stages a rank (Narayanan et al. 2021), whose
    bubble is a `stages_per_rank`-th; or ZBV, whose backward pass is split in two to fill the bubble (Qi et al. 2024).

    `stages_per_rank` 0: one under 1F1B, two under the others. `micro_batches` is how many a data rank's batch is cut in,
    0: as many as it has sequences, or as the caller's micro-batch size makes.
    """

    name: ScheduleName = "1f1b"
    stages_per_rank: int = 0
    micro_batches: int = 0

    def __post_init__(self) -> None:
        if not self.stages_per_rank:
            object.__setattr__(self, "stages_per_rank", 1 if self.name == "1f1b" else 2)

    def check(self, pp: int) -> None:
        """Raises ValueError in words where `pp` ranks cannot run it."""
        count = self.micro_batches
        if self.name == "1f1b" and self.stages_per_rank != 1:
            raise ValueError(
                f"pipeline: 1F1B has one stage a rank, not {self.stages_per_rank}; set train.pipeline_schedule=interleaved, "
                "or train.pipeline_stages_per_rank=1"
            )
        if self.name == "zero_bubble" and self.stages_per_rank != 2:
            raise ValueError(
                f"pipeline: ZBV has two stages a rank, not {self.stages_per_rank}; set train.pipeline_stages_per_rank=2"
            )
        if self.name == "interleaved" and self.stages_per_rank < 2:
            raise ValueError("pipeline: interleaving needs two stages a rank or more; set train.pipeline_stages_per_rank=2")
        if count and count != self._fitting(count, pp):
            raise ValueError(
                f"pipeline: {count} micro-batches cannot run on {pp} ranks under {self.name}; set "
                f"train.pipeline_micro_batches to {self._fitting(count, pp)}, or to 0"
            )

    def micro_batches_of(self, rows: int, rows_a_micro_batch: int, pp: int) -> int:
        """Into how many micro-batches `rows` sequences are cut, `rows_a_micro_batch` (0: one) each unless set here."""
        return self._fitting(self.micro_batches or -(-rows // max(1, rows_a_micro_batch)), pp)

    def padding(self, rows: int, rows_a_micro_batch: int, pp: int) -> int:
        """Sequences that predict nothing and are computed with `rows` others, so that micro-batches are equally large."""
        count = self.micro_batches_of(rows, rows_a_micro_batch, pp)
        return -(-rows // count) * count - rows

    def rank_of(self, stage: int, pp: int) -> int:
        """The pipeline rank that runs a stage: in turn, or to and fro under ZBV, so that one rank has both ends."""
        turn, place = divmod(stage, pp)
        return pp - 1 - place if self.name == "zero_bubble" and turn % 2 else place

    def _fitting(self, count: int, pp: int) -> int:
        """The next number of micro-batches that the schedule can run: one a rank at least, whole rounds if interleaved."""
        count = max(count, pp)
        return -(-count // pp) * pp if self.name == "interleaved" else count


def split_layers(layers: int, stages: int) -> list[range]:
    """The blocks of each stage, in order: as even as can be, the embedding and the output head counting as a layer each.

    So the first and the last stage have one layer fewer (Llama 3, section 3.3.2): 126 layers in 16 stages are 7, fourteen
    times 8, and 7; in 128 stages the first is the embedding alone, and the last the head. Raises ValueError in words where
    a stage between them would have nothing to do.
    """
    spare = stages - layers
    if spare > 2 or layers < 1:
        raise ValueError(
            f"mesh: {layers} layers, an embedding and an output head cannot fill {stages} pipeline stages; "
            "lower train.pipeline_parallel or train.pipeline_stages_per_rank"
        )
    counts = [1] * stages
    if spare > 0:
        counts[-1] = 0
    if spare > 1:
        counts[0] = 0
    load = [1.0] * stages
    load[0] += 1
    load[-1] += 1
    for _ in range(-spare):
        lightest = min(range(stages), key=load.__getitem__)
        counts[lightest] += 1
        load[lightest] += 1
    ends = [sum(counts[: stage + 1]) for stage in range(stages)]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
