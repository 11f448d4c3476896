"""What a row says beside the loss: waits, memory, model FLOPs utilisation, and the state of each node."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from l3_platform.model.config import ModelConfig, presets
from l3_platform.model.flops import flops_a_token
from l3_platform.train.branch import complete
from l3_platform.train.data_order import Step
from l3_platform.train.meter import Meter, peak_memory
from l3_platform.train.metrics import read
from l3_platform.train.ranks import Ranks
from l3_platform.train.system import SystemMetrics, _gpus
from tests.parallel.ranks import in_processes
from tests.train.test_loop import TINY, job_in, train

CPU = torch.device("cpu")


@pytest.mark.parametrize("config", [TINY, replace(TINY, tied=True)])
def test_flops_are_counted_as_the_matrix_products_of_a_step_are(config: ModelConfig) -> None:
    """torch's own counter on a real forward and backward pass: it counts all of the attention, we the causal half."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from l3_platform.model import Llama
    from l3_platform.model.attention import Sdpa
    from l3_platform.model.init import initialize

    model, rows, seq_len = Llama(config, Sdpa()), 3, 64
    initialize(model, 1)
    tokens = torch.randint(0, 60, (rows, seq_len + 1))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernel of the CPU is not counted
        model(tokens[:, :-1], tokens[:, 1:], None).backward()
    counted = counter.get_total_flops() / (rows * seq_len)
    attention = 6 * TINY.layers * TINY.d_model * seq_len
    assert counted == pytest.approx(flops_a_token(config, seq_len) + attention, rel=1e-9)


def test_the_convention_gives_the_papers_utilisation() -> None:
    """Table 4: 400 TFLOPs a GPU are 41 % of an H100's 989; 16,384 GPUs then see 15.6 T tokens in about 70 days."""
    flops = flops_a_token(presets["405b"], 8192)
    tokens_a_second = 16_384 * 400e12 / flops
    assert flops == pytest.approx(6 * (405.85e9 - 128_256 * 16_384) + 6 * 126 * 16_384 * 8192, rel=1e-4)
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
    assert row["tokens_per_second_per_device"] == pytest.approx(row["tokens_per_second"] / 2, abs=0.1)
    assert row["mfu"] == pytest.approx(pace * flops_a_token(TINY, 32) / 2e9, rel=1e-2)
    assert row["peak_memory_bytes"] > 50e6  # torch alone is more
    assert meter.row()["data_seconds"] == 0.0


def test_every_row_of_a_run_has_them(tmp_path: Path) -> None:
    job = job_in(tmp_path, total_tokens=2048)
    train(job)
    rows = read(job.folder)
    names = {"time", "seconds", "data_seconds", "checkpoint_seconds", "peak_memory_bytes", "tokens_per_second"}
    assert all(names | {"tokens_per_second_per_device"} <= set(row) for row in rows) and "mfu" not in rows[0]


def test_peak_memory_is_that_of_the_rank_that_holds_most_and_seldom_asked_for(tmp_path: Path) -> None:
    asked, first, highest = in_processes(2, tmp_path, with_a_large_second_rank, str(tmp_path))
    peaks = [row["peak_memory_bytes"] for row in read(tmp_path / "run")]
    assert peaks == sorted(peaks) and first + 200e6 < peaks[0] and peaks[-1] <= highest
    assert 1 <= asked < len(peaks) / 2


def with_a_large_second_rank(rank: int, folder: str) -> tuple[int, float, float]:
    """Trains; returns how often the ranks compared what they hold, what this one held, and the second one with 300 MB more."""
    ballast, asked, compare = b"\1" * (300_000_000 * rank), [], Meter.compare_memory
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meter, "compare_memory", lambda meter, ranks: (asked.append(ranks), compare(meter, ranks)))
        train(job_in(Path(folder)))
    here = Ranks(rank, 2, CPU)
    assert here.max(float(len(ballast))) == 300_000_000
    return len(asked), peak_memory(CPU), here.max(peak_memory(CPU))


def test_a_save_behind_the_steps_is_told_once_with_what_it_took(tmp_path: Path) -> None:
    job = job_in(tmp_path, keep_checkpoints=9)
    train(job)
    told = [row["checkpoint_save_seconds"] for row in read(job.folder) if "checkpoint_save_seconds" in row]
    assert 2 <= len(told) <= len(complete(job.folder)) == 4 and min(told) > 0  # the last one may end after the last row


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


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (70_000_000_000, 80_000_000_000))


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_sampled_with_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda gpu: [90, 50][gpu])
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda gpu: [10, 30][gpu] * 10**9)
    system, found, deadline = SystemMetrics(tmp_path, seconds=0.1), dict[str, float](), time.monotonic() + 20
    while time.monotonic() < deadline and not found:
        found = system.new()
        time.sleep(0.02)
    system.close()
    assert found["system/node-0/gpu_percent"] == 70.0 and found["system/node-0/gpu_memory_used_bytes"] == 30e9


@pytest.mark.usefixtures("two_gpus")
def test_without_nvml_the_memory_of_a_gpu_is_told_and_nothing_said() -> None:
    assert _gpus() == {"gpu_memory_used_bytes": 10e9}  # torch's own functions, which find no NVML here


def test_without_gpus_there_is_nothing_of_them() -> None:
    assert torch.cuda.is_available() or _gpus() == {}


def test_a_model_with_longer_sequences_costs_more_a_token() -> None:
    config = ModelConfig(vocab_size=64, d_model=32, layers=2, heads=4, kv_heads=2, ffn=96)
    assert flops_a_token(config, 128) - flops_a_token(config, 64) == 6 * 2 * 32 * 64
