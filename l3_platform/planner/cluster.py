"""What a GPU and its links do, by their makers' data sheets and published kernels; nothing here is fitted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """Of the peak FLOPs that kernels reach, 0 to 1. `l3_platform.planner.calibration` fits them."""

    matrices: float
    attention: float


@dataclass(frozen=True)
class Cluster:
    """H100 SXM5 as Llama 3 had them (section 3.3.1): eight a server on NVLink, a 400 Gb/s RoCE port each.

    `link_share` is the part of a link's rate that collectives reach: an assumption, as is `hop`, the latency of one step
    of a ring. The memory limit leaves the rest of an H100's 79.1 GiB to the CUDA context, NCCL's buffers and fragmentation.
    """

    peak_flops: float = 989.4e12  # bf16 without sparsity, FLOPs a second
    memory: float = 80e9  # bytes that tensors may take
    memory_rate: float = 3.35e12  # bytes a second
    gpus_a_node: int = 8
    nvlink_rate: float = 450e9  # bytes a second and direction
    network_rate: float = 50e9  # the same, 400 Gb/s a GPU
    gpus_a_pod: int = 3072
    oversubscription: float = 7.0  # of the links between pods
    link_share: float = 0.8
    hop: float = 3e-6  # seconds

    def gather_seconds(self, size: float, ranks: int, stride: int, gpus: int) -> float:
        """All-gather (or reduce-scatter) of `size` bytes in all over a ring of `ranks` that lie `stride` GPUs apart.

        Several ranks of a ring in one node share its network ports among them; rings that cross pods share the
        oversubscribed links between them.
        """
        if ranks == 1:
            return 0.0
        return (ranks - 1) / ranks * size / self._rate(ranks, stride, gpus) + (ranks - 1) * self.hop

    def send_seconds(self, size: float, stride: int) -> float:
        """To the rank `stride` GPUs away."""
        return size / (self.link_share * (self.nvlink_rate if stride < self.gpus_a_node else self.network_rate)) + self.hop

    def _rate(self, ranks: int, stride: int, gpus: int) -> float:
        if ranks * stride <= self.gpus_a_node:
            return self.link_share * self.nvlink_rate
        in_node = max(1, self.gpus_a_node // stride)
        rate = min(self.nvlink_rate, in_node * self.network_rate)
        if ranks * stride > self.gpus_a_pod:
            rings = gpus / ranks / in_node  # each crosses a pod's border once, with as many ports as it has in a node
            ports = self.gpus_a_pod / self.oversubscription
            rate /= max(1.0, rings * in_node / ports)
        return self.link_share * rate


H100 = Cluster()
