"""A run of 300 short steps on two agents, its undisturbed result (once for all workers), and a way to find its processes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock

from l3_platform.launch import run_training
from l3_platform.model import ModelConfig
from l3_platform.settings import Stage, Train
from l3_platform.train import TrainJob, TrainResult

SETTINGS = Train(nodes=2, processes_per_node=1, max_restarts=2, shutdown_seconds=6.0)
MODEL = ModelConfig(vocab_size=256, d_model=32, layers=2, heads=2, kv_heads=1, ffn=96)


@pytest.fixture(scope="session")
def tokens(shared_folder: Path) -> tuple[str, ...]:
    path = shared_folder / "launch-tokens.bin"
    random = np.random.default_rng(0)
    stream = np.cumsum(random.integers(1, 4, 20_000)) % 250
    stream[::50] = 254
    partial = path.with_suffix(f".{os.getpid()}")
    stream.astype("<u4").tofile(partial)
    partial.rename(path)
    return (str(path),)


@pytest.fixture(scope="session")
def make_job(tokens: tuple[str, ...]) -> Callable[[Path], TrainJob]:
    def make(folder: Path) -> TrainJob:
        return TrainJob.from_settings(
            SETTINGS, folder=str(folder / "run"), output=str(folder / "model"), model=MODEL, data={"web": tokens},
            shares={"web": 1.0}, bos_id=254, eos_id=255, total_tokens=300 * 128, warmup_tokens=1280,
            ramp=(Stage(batch_tokens=128, seq_len=32),), checkpoint_every_tokens=20 * 128,
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def undisturbed_job(make_job: Callable[[Path], TrainJob], shared_folder: Path) -> TrainJob:
    return make_job(shared_folder / "launch-undisturbed")


@pytest.fixture(scope="session")
def undisturbed(undisturbed_job: TrainJob, shared_folder: Path) -> TrainResult:
    with FileLock(shared_folder / "launch-undisturbed.lock"):
        return run_training(undisturbed_job, SETTINGS)


@pytest.fixture(scope="session")
def settings() -> Train:
    return SETTINGS


@pytest.fixture(scope="session")
def processes() -> Callable[..., list[psutil.Process]]:
    return find_processes


@pytest.fixture(scope="session")
def losses() -> Callable[[Path], dict[int, float]]:
    return read_losses


def find_processes(folder: Path, kind: str = "--job") -> list[psutil.Process]:
    """Agents (`l3_platform.launch.agent`), ranks (`l3_platform.train`), or both, of the job under `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        agent = "l3_platform.launch.agent" in line
        wanted = kind == "--job" or agent == (kind == "l3_platform.launch.agent")
        if f"{folder}/run/job.json" in line and wanted and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def read_losses(folder: Path) -> dict[int, float]:
    """Loss of every step in the record of the job under `folder`; fails where a step appears twice."""
    from l3_platform.train.metrics import read

    rows = read(folder / "run")
    assert len({row["step"] for row in rows}) == len(rows)
    return {int(row["step"]): row["loss"] for row in rows}
