"""The client of torchrun: what it refuses, what it reports, and that it gives up."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from l3_platform.launch import launcher_for, run_training
from l3_platform.settings import SettingsError, Train
from l3_platform.store.lock import Lock, Locked
from l3_platform.train import TrainingError, TrainJob, TrainResult

MakeJob = Callable[[Path], TrainJob]
Processes = Callable[..., list[psutil.Process]]


@pytest.mark.parametrize("name", ["hosts", "slurm", "kubernetes"])
def test_a_launcher_without_its_section_is_refused_in_words(name: str, settings: Train) -> None:
    with pytest.raises(SettingsError, match=f"train.launcher: '{name}' needs the section of that name"):
        launcher_for(settings.model_copy(update={"launcher": name}))


def test_a_mesh_that_cannot_be_is_refused_before_anything_starts(make_job: MakeJob, tmp_path: Path, settings: Train) -> None:
    job = make_job(tmp_path).model_copy(update={"data_parallel_shard": 3})
    with pytest.raises(ValueError, match="2 ranks cannot be cut into shards of 3"):
        run_training(job, settings)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_another_client_trains_in_is_refused(make_job: MakeJob, tmp_path: Path, settings: Train) -> None:
    job = make_job(tmp_path)
    with Lock(f"{job.folder}/client-lock", owner="the first"), pytest.raises(Locked, match="held by the first"):
        run_training(job, settings)


@pytest.mark.slow
def test_a_failure_that_would_repeat_is_reported_and_not_tried_again(
    make_job: MakeJob, tmp_path: Path, settings: Train, processes: Processes
) -> None:
    job = make_job(tmp_path).model_copy(update={"learning_rate": 1e30, "warmup_tokens": 0})
    with pytest.raises(TrainingError, match=r"step \d+ .*gradient norm nan.* in a new run$"):
        run_training(job, settings)
    assert [path.name for path in (tmp_path / "run" / "logs").iterdir()] == ["attempt-1"]
    assert processes(tmp_path) == []


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_tried_again_in_the_next_attempt(
    make_job: MakeJob, tmp_path: Path, settings: Train, undisturbed: TrainResult
) -> None:
    def block(line: str) -> None:
        last = tmp_path / "run" / "step-00000300.partial"
        if line.startswith("step ") and not list((tmp_path / "run" / "logs").glob("attempt-2")):
            last.touch()  # where a folder should be; the next attempt clears it

    assert run_training(make_job(tmp_path), settings, on_line=block) == undisturbed
    assert "a checkpoint could not be written" in (tmp_path / "run" / "logs" / "attempt-1" / "rank-00000.log").read_text()
    assert len(list((tmp_path / "run" / "logs").iterdir())) == 2


@pytest.mark.slow
def test_the_client_gives_up_after_so_many_relaunches_without_a_checkpoint(
    make_job: MakeJob, tmp_path: Path, settings: Train, processes: Processes
) -> None:
    changed = settings.model_copy(update={"max_restarts": 1, "nodes": 1})

    def kill(line: str) -> None:
        if line.startswith("step "):
            for process in processes(tmp_path, "l3_platform.train"):
                process.kill()

    job = make_job(tmp_path).model_copy(update={"checkpoint_every_tokens": 0})
    with pytest.raises(TrainingError, match="gave up after 1 relaunches without a new checkpoint"):
        run_training(job, changed, on_line=kill)
    assert len(list((tmp_path / "run" / "logs").iterdir())) == 2


@pytest.mark.slow
def test_a_finished_job_starts_nothing(undisturbed_job: TrainJob, undisturbed: TrainResult, settings: Train) -> None:
    assert run_training(undisturbed_job, settings) == undisturbed
    assert len(list((Path(undisturbed_job.folder) / "logs").iterdir())) == 1


def test_launching_imports_no_torch() -> None:
    modules = ", ".join(f"l3_platform.launch.{name}" for name in ("local", "torchrun", "slurm", "batch", "kubernetes", "agent"))
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
