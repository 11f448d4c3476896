"""The shape of the process mesh in one dataclass. Free of torch: launchers check it before they start anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from l3_platform.model.config import ModelConfig
from l3_platform.parallel.schedule import PipelineSchedule, split_layers


@dataclass(frozen=True)
class Mesh:
    """Degrees of parallelism, innermost first: tensor, context, pipeline, data (Llama 3, section 3.3.2).

    Ranks beside each other differ in `tp`: they talk most and share a node. Data parallelism is `dp_replicate` replicas
    of `dp_shard` shards: FSDP2 at dp_replicate 1, hybrid sharding above. Parameters are sharded over context-parallel
    ranks too.
    """

    dp_replicate: int = 1
    dp_shard: int = 1
    pp: int = 1
    cp: int = 1
    tp: int = 1

    def __post_init__(self) -> None:
        for name in ("dp_replicate", "dp_shard", "pp", "cp", "tp"):
            if getattr(self, name) < 1:
                raise ValueError(f"mesh: {name} must be at least 1 (got {getattr(self, name)})")

    @property
    def ranks(self) -> int:
        return self.data_ranks * self.model_ranks

    @property
    def model_ranks(self) -> int:
        """Ranks that read the same sequences and compute their loss together."""
        return self.pp * self.cp * self.tp

    @property
    def data_ranks(self) -> int:
        """Groups of ranks that read different sequences."""
        return self.dp_replicate * self.dp_shard

    def data_rank(self, rank: int) -> int:
        return rank // self.model_ranks

    def tp_rank(self, rank: int) -> int:
        return rank % self.tp

    def cp_rank(self, rank: int) -> int:
        return rank // self.tp % self.cp

    def pp_rank(self, rank: int) -> int:
        return rank // (self.tp * self.cp) % self.pp

    def check(self, model: ModelConfig, seq_lens: Iterable[int], schedule: PipelineSchedule) -> None:
        """Raises ValueError, naming the setting to change, where the model or the sequences cannot be cut like this."""
        cuts = {
            "query heads": model.heads,
            "KV heads": model.kv_heads,
            "FFN columns": model.ffn,
            "vocabulary entries": model.vocab_size,
        }
        for what, count in cuts.items():
            if count % self.tp:
                raise ValueError(
                    f"mesh: {count:,} {what} cannot be cut over {self.tp} tensor-parallel ranks; "
                    f"set train.tensor_parallel to a divisor of {count:,}"
                )
        for seq_len in seq_lens:
            self._check_sequence(seq_len)
        if self.pp == 1:
            return
        split_layers(model.layers, self.pp * schedule.stages_per_rank)
        if model.tied:
            raise ValueError(
                "mesh: a tied embedding would lie on the first and on the last pipeline stage; "
                "set train.pipeline_parallel=1, or untie the model"
            )
        schedule.check(self.pp)

    def _check_sequence(self, seq_len: int) -> None:
        if self.cp > 1 and seq_len % (2 * self.cp):
            raise ValueError(
                f"mesh: sequences of {seq_len} tokens cannot be cut into {2 * self.cp} chunks, two for each context-parallel "
                f"rank; set train.context_parallel or the ramp's seq_len so that 2 · context_parallel divides it"
            )
        if seq_len // self.cp % self.tp:
            raise ValueError(
                f"mesh: the {seq_len // self.cp} tokens of a sequence on a context-parallel rank cannot be cut over "
                f"{self.tp} tensor-parallel ranks (sequence parallelism); change train.tensor_parallel or the ramp's seq_len"
            )


def mesh_for(ranks: int, dp_shard: int = 0, *, tp: int = 1, cp: int = 1, pp: int = 1) -> Mesh:
    """The mesh of so many ranks: what tp, cp and pp leave is data parallelism, with the wanted shard degree (0: all of
    it). Raises ValueError in words."""
    if ranks < 1:
        raise ValueError(f"mesh: {ranks} ranks cannot train; set train.nodes and train.processes_per_node to 1 or more")
    model_ranks = tp * cp * pp
    if model_ranks < 1 or ranks % model_ranks:
        raise ValueError(
            f"mesh: {_ranks(ranks)} cannot hold whole models of {_ranks(model_ranks)} (tensor {tp} · context {cp} · pipeline "
            f"{pp}); start a multiple of {model_ranks} processes, or lower train.tensor_parallel, context_parallel or "
            "pipeline_parallel"
        )
    data = ranks // model_ranks
    shard = dp_shard or data
    if shard < 1 or data % shard:
        near = [d for d in range(1, data + 1) if data % d == 0]
        of = _ranks(ranks) if model_ranks == 1 else f"{_ranks(data, 'data-parallel ')} (of {ranks})"
        raise ValueError(
            f"mesh: {of} cannot be cut into shards of {shard}; "
            f"set train.data_parallel_shard to one of {', '.join(map(str, near))}, or change the number of processes"
        )
    return Mesh(dp_replicate=data // shard, dp_shard=shard, pp=pp, cp=cp, tp=tp)


def _ranks(count: int, kind: str = "") -> str:
    return f"{count} {kind}rank{'s' * (count != 1)}"
