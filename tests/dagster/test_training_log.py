"""What of a training's lines comes into Dagster's log and onto a terminal: all that matters, and never a flood."""

from collections.abc import Iterator
from typing import Any

import pytest

from l3_platform.engine import progress
from l3_platform.orchestration.log import MOST_LINES, TrainingLog, careful_log

STARTS = "INFO 32,336 parameters in fp32, attention by native, 2 x cpu (dp_shard 2), from step 59"
IDLE = "WARNING /run: batches of 128 tokens are 1 sequences for 2 data ranks, of which the others predict nothing"
SKIPS = "WARNING step 101 (tokens 12,800 to 12,928): loss 7.59, gradient norm 12.4; its data is skipped"
LOST = "training was lost (agent-00001 ended with exit code 1); relaunching from step-00000040 (2 of 3)"
OF_TORCH = "[W1128 21:12:34.380464240 Utils.hpp:137] Warning: Environment variable is deprecated"


def step(number: int) -> str:
    return f"step {number:>7,}  tokens {number * 128:>13,}  loss 6.6436"


class Log(TrainingLog):
    """With a clock that is set by hand."""

    def __init__(self) -> None:
        self.clock, self.lines = 0.0, list[str]()
        super().__init__(self.lines.append, "/run/logs", lambda: self.clock)


@pytest.fixture
def aloud() -> Iterator[None]:
    progress.speak()
    yield
    progress.speak(False)


def test_a_start_a_warning_and_a_relaunch_are_logged_whatever_came_just_before() -> None:
    log = Log()
    for line in (OF_TORCH, IDLE, STARTS, step(60), step(61), SKIPS, step(62), LOST):
        log(line)
    assert log.lines == [OF_TORCH, IDLE, STARTS, step(60), SKIPS, LOST]


def test_a_terminal_shows_what_is_meant_for_a_person_and_a_step_in_ten_seconds(
    aloud: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log()
    for line in (OF_TORCH, IDLE, STARTS, SKIPS, LOST, "submitted Slurm job 12 (/run)", "  File 'loop.py', line 223, in _step"):
        log(line)
    for number in range(1, 101):
        log.clock += 0.25
        log(step(number))
    shown = capsys.readouterr().out.splitlines()
    assert shown == [IDLE, STARTS, SKIPS, LOST, "submitted Slurm job 12 (/run)", step(1), step(41), step(81)]
    assert [line for line in log.lines if line.startswith("step ")] == [step(1), step(41), step(81)]


def test_a_server_s_worker_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Log()(STARTS)
    assert capsys.readouterr().out == ""


def test_a_flood_is_cut_and_counted_and_hides_no_warning() -> None:
    log = Log()
    for number in range(5_000):
        log(f'  File "stack.py", line {number}, in wait')
    log(SKIPS)
    assert len(log.lines) == MOST_LINES + 1 and log.lines[-1] == SKIPS
    log.clock += 60
    log(step(102))
    assert log.lines[-2:] == [f"{5_000 - MOST_LINES:,} more lines; /run/logs has them", step(102)]
    log.flush()
    assert log.lines[-1] == step(102)


def test_a_warning_is_one_in_dagster_too() -> None:
    said: list[tuple[str, str]] = []

    class Context:
        class log:
            @staticmethod
            def info(text: str) -> None:
                said.append(("info", text))

            @staticmethod
            def warning(text: str) -> None:
                said.append(("warning", text))

    context: Any = Context
    careful_log(context)(STARTS)
    careful_log(context)(SKIPS)
    assert said == [("info", STARTS), ("warning", SKIPS)]
