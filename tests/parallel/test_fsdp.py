"""FSDP2 against one process: loss and gradients over three steps. Silent wrong gradients are the field's worst bug."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from l3_platform.model import Llama, ModelConfig
from l3_platform.model.init import initialize
from l3_platform.parallel import Mesh, mesh_for
from l3_platform.parallel.parallelize import full, local_rows, parallelize, reduce_gradients
from l3_platform.train.optimizer import AdamW, clip_gradients

CONFIG = ModelConfig(vocab_size=64, d_model=32, layers=3, heads=4, kv_heads=2, ffn=64)
BOS = 63


def three_steps(mesh: Mesh, rank: int, **options: Any) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """Losses and whole gradients of three steps; each rank takes its share of 4 sequences in two micro-batches."""
    with torch.device("meta"):
        model = Llama(CONFIG)
    parallelize(model, mesh, device=torch.device("cpu"), unit_parameters=15_000, **options)
    model.to_empty(device="cpu")
    initialize(model, 1, local_rows)
    optimizer = AdamW(model, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1)
    losses, gradients = [], []
    for step in range(3):
        tokens = torch.randint(0, 64, (4, 17), generator=torch.Generator().manual_seed(step))
        mine = tokens[rank :: mesh.ranks]
        nats = torch.zeros(())
        for number, part in enumerate(mine.split(1)):
            reduce_gradients(model, wanted=number == len(mine) - 1)
            loss = model(part[:, :-1], part[:, 1:], bos_id=BOS)
            loss.backward()
            nats += loss.detach()
        if mesh.ranks > 1:
            torch.distributed.all_reduce(nats)
        norm = clip_gradients(model, scale=1 / 64, max_norm=1.0)
        gradients.append({name: full(p.grad).clone() for name, p in model.named_parameters()} | {"norm": norm})
        optimizer.step(1e-2)
        for parameter in model.parameters():
            parameter.grad = None
        losses.append(nats.item() / 64)
    return losses, gradients


def in_a_rank(rank: int, mesh: Mesh, port: int, folder: str, options: dict[str, Any]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=mesh.ranks)
    result = three_steps(mesh, rank, **options)
    if rank == 0:
        torch.save(result, Path(folder) / "result.pt")
    torch.distributed.destroy_process_group()


def in_processes(mesh: Mesh, folder: Path, **options: Any) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(in_a_rank, args=(mesh, port, str(folder), options), nprocs=mesh.ranks)  # type: ignore[attr-defined]
    return torch.load(folder / "result.pt")


@pytest.mark.parametrize("mesh", [Mesh(1, 2), Mesh(2, 1), pytest.param(Mesh(2, 2), marks=pytest.mark.slow)])
def test_sharded_ranks_have_the_loss_and_gradients_of_one_process(mesh: Mesh, tmp_path: Path) -> None:
    losses, gradients = in_processes(mesh, tmp_path)
    expected_losses, expected_gradients = three_steps(Mesh(), 0)
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    for got, expected in zip(gradients, expected_gradients, strict=True):
        assert got.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_bf16_follows_fp32_to_the_precision_of_bf16(tmp_path: Path) -> None:
    losses, _ = in_processes(Mesh(1, 2), tmp_path, precision="bf16")
    expected, _ = three_steps(Mesh(), 0)
    assert losses == pytest.approx(expected, rel=5e-3) and losses != pytest.approx(expected, rel=1e-7)


def test_activation_checkpointing_changes_neither_gradients_nor_names() -> None:
    losses, gradients = three_steps(Mesh(), 0, activation_checkpointing=True)
    expected_losses, expected_gradients = three_steps(Mesh(), 0)
    assert losses == expected_losses and gradients[2].keys() == expected_gradients[2].keys()
    assert all(torch.equal(gradients[2][name], tensor) for name, tensor in expected_gradients[2].items())


@pytest.mark.slow
def test_compiled_blocks_have_the_gradients_of_eager_ones() -> None:
    _, gradients = three_steps(Mesh(), 0, compile_blocks=True)
    _, expected = three_steps(Mesh(), 0)
    assert all(torch.allclose(gradients[2][name], tensor, atol=1e-5) for name, tensor in expected[2].items())


@pytest.mark.parametrize(("ranks", "shard", "expected"), [(8, 0, Mesh(1, 8)), (8, 4, Mesh(2, 4)), (1, 0, Mesh(1, 1))])
def test_the_mesh_is_replicas_of_shards(ranks: int, shard: int, expected: Mesh) -> None:
    assert mesh_for(ranks, shard) == expected


def test_an_impossible_mesh_names_the_possible_ones() -> None:
    with pytest.raises(ValueError, match=r"6 ranks cannot be cut into shards of 4; .* one of 1, 2, 3, 6"):
        mesh_for(6, 4)
