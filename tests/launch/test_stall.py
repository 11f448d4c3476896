"""An attempt whose rank 0 says nothing of a step is lost after a while, and gets ten times as long to start and to finish."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l3_platform.launch.attempts import FINISHING
from l3_platform.launch.places import Start
from l3_platform.launch.protocol import State
from l3_platform.launch.torchrun import Torchrun
from l3_platform.settings import Train
from l3_platform.train import TrainJob, TrainResult

MakeJob = Callable[[Path], TrainJob]
STEP = "step     300  tokens        38,400  loss 4.1250"
STALL_SECONDS = 0.4


@pytest.fixture
def training(make_job: MakeJob, tmp_path: Path) -> Iterator[Callable[..., Torchrun]]:
    """Starts one process that has rank 0's log say these lines, and then nothing for as long as it is let."""
    started: list[Torchrun] = []

    def start(*lines: str) -> Torchrun:
        def place(settings: Train, job_file: Path, logs: Path) -> list[Start]:
            (logs / "rank-00000.log").write_text("".join(f"{line}\n" for line in lines))
            return [Start("agent-00000", [sys.executable, "-c", "import sys; sys.stdin.read()"], {})]

        started.append(Torchrun(Train(stall_seconds=STALL_SECONDS, shutdown_seconds=1.0), place))
        started[0].submit(make_job(tmp_path))
        assert started[0].logs() == [*lines]
        return started[0]

    yield start
    started[0].cancel()


def after(seconds: float, launcher: Torchrun) -> State:
    time.sleep(seconds)
    return launcher.poll()


def test_silence_after_a_step_is_a_stall(training: Callable[..., Torchrun]) -> None:
    state = after(1.2 * STALL_SECONDS, training(STEP))
    assert state.name == "crashed" and "training stalled" in state.message


@pytest.mark.parametrize("lines", [("INFO 24,960 parameters in fp32, from step 0",), (STEP, f"{FINISHING}held-out losses")])
def test_a_start_or_a_finish_may_take_ten_times_as_long_and_no_longer(
    training: Callable[..., Torchrun], lines: tuple[str, ...]
) -> None:
    launcher = training(*lines)
    assert after(3 * STALL_SECONDS, launcher).name == "running"
    assert after(8 * STALL_SECONDS, launcher).name == "crashed"


@pytest.mark.slow
def test_rank_0_says_that_it_finishes_between_its_last_step_and_the_end(
    undisturbed_job: TrainJob, undisturbed: TrainResult
) -> None:
    lines = (Path(undisturbed_job.folder) / "logs" / "attempt-1" / "rank-00000.log").read_text().splitlines()
    steps, finishing = [[n for n, line in enumerate(lines) if line.startswith(word)] for word in ("step ", FINISHING)]
    assert len(finishing) == 1 and steps[-1] < finishing[0] < len(lines) - 1
