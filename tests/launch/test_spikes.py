"""Noise in a data shard, met by two ranks: both skip and roll back alike, and a killed rank changes nothing of it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from l3_platform.launch import run_training
from l3_platform.settings import Stage, Train
from l3_platform.train import TrainJob
from l3_platform.train.data_order import DataOrder
from l3_platform.train.token_stream import TokenStream
from tests.launch.test_faults import RANK, step_of

BATCH, SEQ_LEN, STEPS = 64, 32, 300
ALONE, IN_A_ROW = 200, (240, 241, 242)


def noisy(folder: Path, tokens: tuple[str, ...]) -> str:
    """The tokens with noise exactly where the batches of ALONE and IN_A_ROW (steps, counted from 1) will read."""
    stream = np.fromfile(tokens[0], dtype="<u4")
    places = folder / "places.bin"  # a stream that tells where each of its tokens lies
    np.arange(len(stream), dtype="<u4").tofile(places)
    job = job_on(folder, str(places))
    order, streams = DataOrder({"web": len(stream)}, job.mixtures, SEQ_LEN, job.seed), TokenStream([str(places)])
    random = np.random.default_rng(1)
    for step in (ALONE, *IN_A_ROW):
        for position in range((step - 1) * BATCH, step * BATCH, SEQ_LEN):
            piece = order.piece(position, SEQ_LEN)
            read = streams.read(piece.start, piece.tokens)
            stream[read] = random.integers(0, 250, len(read))
    path = folder / "noisy.bin"
    stream.tofile(path)
    return str(path)


def job_on(folder: Path, data: str) -> TrainJob:
    from tests.launch.conftest import MODEL

    return TrainJob.from_settings(
        Train(), folder=str(folder / "run"), output=str(folder / "model"), model=MODEL, data={"web": (data,)}, shares={"web": 1.0},
        bos_id=254, eos_id=255, total_tokens=STEPS * BATCH, warmup_tokens=1280, checkpoint_every_tokens=20 * BATCH,
        ramp=(Stage(batch_tokens=BATCH, seq_len=SEQ_LEN),), spike_window=32, max_skipped_steps=2, keep_checkpoints=4,
    )  # fmt: skip


@pytest.mark.exhaustive
def test_noise_in_a_shard_is_skipped_and_rolled_back_from_alike_on_all_ranks_and_after_a_kill(
    tokens: tuple[str, ...], tmp_path: Path, settings: Train, processes: Callable[..., list[psutil.Process]]
) -> None:
    shard = noisy(tmp_path, tokens)
    (tmp_path / "whole").mkdir()
    expected = run_training(job_on(tmp_path / "whole", shard), settings)
    # The checkpoint before the three is that of step 220: steps 221 to 242 go, and the one alone.
    assert (expected.skipped_steps, expected.rollbacks) == (1 + 22, 1)
    assert expected.skipped_tokens == 23 * BATCH
    newest = max((tmp_path / "whole" / "run").glob("step-*"))
    memory = json.loads((newest / "complete.json").read_text())["position"]["memory"]
    assert memory["skipped"] == [[(ALONE - 1) * BATCH, ALONE * BATCH], [220 * BATCH, 242 * BATCH]]

    killed: list[psutil.Process] = []

    def kill_once(line: str) -> None:
        if step_of(line) >= 225 and not killed:
            killed.append(processes(tmp_path / "broken", RANK)[-1])
            killed[0].send_signal(signal.SIGKILL)

    assert run_training(job_on(tmp_path / "broken", shard), settings, on_line=kill_once) == expected
    assert killed
    names = ("model.safetensors", "result.json")
    whole, broken = ([(tmp_path / run / "model" / name).read_bytes() for name in names] for run in ("whole", "broken"))
    assert whole == broken
