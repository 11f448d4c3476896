"""What a row says beside the loss: waits, memory, model FLOPs utilisation, and the state of each node."""

import json
import time
from pathlib import Path

import pytest
import torch

from l3_platform.model.config import ModelConfig, presets
from l3_platform.train.data_order import Step
from l3_platform.train.flops import flops_a_token
from l3_platform.train.meter import Meter
from l3_platform.train.metrics import read
from l3_platform.train.system import SystemMetrics
from tests.train.test_loop import TINY, job_in, train

CPU = torch.device("cpu")


def test_flops_are_counted_as_the_matrix_products_of_a_step_are() -> None:
    """torch's own counter on a real forward and backward pass: it counts all of the attention, we the causal half, and it
    does not count looking up embeddings."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from l3_platform.model import Llama
    from l3_platform.model.attention import Sdpa
    from l3_platform.model.init import initialize

    model, rows, seq_len = Llama(TINY, Sdpa()), 3, 64
    initialize(model, 1)
    tokens = torch.randint(0, 60, (rows, seq_len + 1))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernel of the CPU is not counted
        model(tokens[:, :-1], tokens[:, 1:], None).backward()
    counted = counter.get_total_flops() / (rows * seq_len)
    attention = 6 * TINY.layers * TINY.d_model * seq_len
    norms_and_embedding = (2 * TINY.layers + 1) * TINY.d_model + TINY.vocab_size * TINY.d_model
    assert counted == pytest.approx(flops_a_token(TINY, seq_len) + attention - 6 * norms_and_embedding, rel=0.01)


def test_the_convention_gives_the_papers_utilisation() -> None:
    """Table 4: 400 TFLOPs a GPU are 41 % of an H100's 989; 16,384 GPUs then see 15.6 T tokens in about 70 days."""
    flops = flops_a_token(presets["405b"], 8192)
    tokens_a_second = 16_384 * 400e12 / flops
    assert flops == pytest.approx(6 * 405.85e9 + 6 * 126 * 16_384 * 8192, rel=1e-4)
    assert 60 < 15.6e12 / tokens_a_second / 86_400 < 75


def test_a_row_tells_the_waits_since_the_last_one(tmp_path: Path) -> None:
    meter = Meter(job_in(tmp_path, peak_flops=1e9), CPU, ranks=2)
    with meter.waiting_for("data"):
        time.sleep(0.05)
    with meter.waiting_for("checkpoint"):
        time.sleep(0.1)
    meter.step(Step(0, 0, 256, 32), skipped=True)
    row = meter.row()
    assert 0.05 <= row["data_seconds"] < row["checkpoint_seconds"] < row["seconds"] and row["skipped_steps"] == 1
    pace = 256 / row["seconds"]
    assert row["mfu"] == pytest.approx(pace * flops_a_token(TINY, 32) / 2e9, rel=1e-2)
    assert row["peak_memory_bytes"] > 50e6  # torch alone is more
    assert meter.row()["data_seconds"] == 0.0


def test_every_row_of_a_run_has_them(tmp_path: Path) -> None:
    job = job_in(tmp_path, total_tokens=2048)
    train(job)
    rows = read(job.folder)
    names = {"time", "seconds", "data_seconds", "checkpoint_seconds", "peak_memory_bytes", "tokens_per_second"}
    assert all(names <= set(row) for row in rows) and "mfu" not in rows[0]


def test_nodes_are_sampled_at_a_low_rate_and_each_sample_is_told_once(tmp_path: Path) -> None:
    system = SystemMetrics(tmp_path, seconds=0.1)
    other = {"time": time.time(), "cpu_percent": 12.5}
    (tmp_path / "system").mkdir(exist_ok=True)
    (tmp_path / "system" / "node-00007.json").write_text(json.dumps(other))
    found: dict[str, float] = {}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not {"system/node-0/cpu_percent", "system/node-7/cpu_percent"} <= set(found):
        found |= system.new()
        time.sleep(0.02)
    system.close()
    assert found["system/node-7/cpu_percent"] == 12.5
    assert 0 <= found["system/node-0/cpu_percent"] <= 100 and found["system/node-0/memory_used_bytes"] > 1e6
    time.sleep(0.3)
    system.new()
    assert "system/node-7/cpu_percent" not in system.new()


def test_a_model_with_longer_sequences_costs_more_a_token() -> None:
    config = ModelConfig(vocab_size=64, d_model=32, layers=2, heads=4, kv_heads=2, ffn=96)
    assert flops_a_token(config, 128) - flops_a_token(config, 64) == 6 * 2 * 32 * 64
