"""Resuming is exact: the real trainer under torchrun, stopped by SIGTERM, over other numbers of ranks, by its own ledger."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l3_platform.launch import run_training
from l3_platform.model import ModelConfig
from l3_platform.settings import Stage, Train
from l3_platform.train import TrainingStopped, TrainJob
from l3_platform.train.data_plan import read_plans
from l3_platform.train.interleave import Mixture
from l3_platform.train.ledger import read

pytestmark = pytest.mark.slow

MODEL = ModelConfig(vocab_size=256, d_model=64, layers=2, heads=4, kv_heads=2, ffn=192)
RAMP = (
    Stage(batch_tokens=128, seq_len=16),
    Stage(from_tokens=6_000, batch_tokens=320, seq_len=32),  # ten sequences: four ranks share them unevenly
    Stage(from_tokens=19_000, batch_tokens=512, seq_len=64),
)
CHANGES = (Mixture(from_tokens=11_001, shares={"web": 0.2, "math": 0.8}), Mixture(from_tokens=23_000, shares={"web": 1.0}))
SIZES = {"web": (2_003, 7, 251), "math": (1_009,)}  # several epochs, and no file is a whole number of sequences
TOTAL = 31_000

MakeJob = Callable[[str], TrainJob]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    draw = np.random.default_rng(0)
    data = {domain: tuple(str(tmp_path / f"{domain}-{i}.bin") for i in range(len(sizes))) for domain, sizes in SIZES.items()}
    for domain, sizes in SIZES.items():
        for path, size in zip(data[domain], sizes, strict=True):
            (np.cumsum(draw.integers(1, 4, size)) % 250).astype("<u4").tofile(path)

    def make(name: str) -> TrainJob:
        return TrainJob.from_settings(
            Train(checkpoint_every_tokens=2_048, warmup_tokens=1280), folder=str(tmp_path / name / "run"),
            output=str(tmp_path / name / "model"), model=MODEL, data=data, shares={"web": 0.7, "math": 0.3},
            mix_changes=CHANGES, bos_id=254, eos_id=255, total_tokens=TOTAL, ramp=RAMP,
        )  # fmt: skip

    return make


def run(job: TrainJob, ranks: int, stop_at: int = 0) -> int:
    """Trains over so many ranks; asks for a stop once step `stop_at` is reported. Returns the step that was reached."""
    reported = 0

    def note(line: str) -> None:
        nonlocal reported
        if line.startswith("step "):
            reported = int(line.split()[1].replace(",", ""))

    settings = Train(nodes=1, processes_per_node=ranks, shutdown_seconds=8.0)
    try:
        return run_training(job, settings, on_line=note, should_stop=lambda: 0 < stop_at <= reported).steps
    except TrainingStopped:
        return int(read(job.folder)["step"].max())


def tokens_consumed(job: TrainJob) -> Counter[tuple[int, int]]:
    """How often each token of each domain's ring was read: (domain, place)."""
    return Counter((int(row["domain"]), int(row["start"]) + at) for row in read(job.folder) for at in range(row["tokens"]))


def losses(job: TrainJob) -> list[tuple[int, float]]:
    from l3_platform.train.metrics import read

    return [(int(row["step"]), row["loss"]) for row in read(job.folder)]


def test_other_numbers_of_ranks_consume_each_token_exactly_once(make_job: MakeJob) -> None:
    whole, broken = make_job("whole"), make_job("broken")
    steps = run(whole, ranks=1)
    stops = [run(broken, ranks=2, stop_at=10), run(broken, ranks=4, stop_at=66), run(broken, ranks=1, stop_at=78)]
    assert run(broken, ranks=2) == steps
    (plan,) = read_plans(broken.folder)
    into_ramp, change = (plan.step_at(tokens).index for tokens in (RAMP[1].from_tokens, CHANGES[0].from_tokens))  # type: ignore[union-attr]
    assert stops[0] < into_ramp < change < stops[1] < stops[2] < steps, (stops, into_ramp, change, steps)

    seen = tokens_consumed(broken)
    assert seen == tokens_consumed(whole) and set(seen.values()) == {1} and seen.total() == plan.tokens
    assert np.array_equal(read(broken.folder), read(whole.folder))
    for domain, size in enumerate(sum(SIZES[name]) for name in sorted(SIZES)):
        own = sorted(place for index, place in seen if index == domain)
        finished = len(own) // size * size
        assert finished and own[:finished] == list(range(finished))
    assert [step for step, _ in losses(broken)] == list(range(1, steps + 1))
    assert [loss for _, loss in losses(broken)] == pytest.approx([loss for _, loss in losses(whole)], rel=1e-3)


def test_on_the_same_mesh_the_losses_are_those_of_an_undisturbed_run_bit_for_bit(make_job: MakeJob) -> None:
    whole, broken = make_job("whole"), make_job("broken")
    steps = run(whole, ranks=2)
    assert 40 <= run(broken, ranks=2, stop_at=40) < run(broken, ranks=2) == steps
    assert losses(broken) == losses(whole)
    assert np.array_equal(read(broken.folder), read(whole.folder))
