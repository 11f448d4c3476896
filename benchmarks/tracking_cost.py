"""What Dagster and MLflow cost a training: the same job by torchrun alone, and as an asset that logs to an MLflow server.

Both are whole processes, start-up and export included; the server is up before. A shared machine's pace may differ by more from
minute to minute than what is looked for, so it is counted by parts, too: the time around the steps, of each, and the core seconds
of Dagster's process from launch to end, of the server, and of what the trainer sends it. Rounds alternate, and the least of each
part counts. Before each run comes a short one of the same kind, whose time around the steps counts too: else the disk is timed,
where a machine drops files from memory that were not read for a minute (a virtual one that gives it back to its host).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.tracked_training import SETTINGS
from benchmarks.training import SHAPES
from l3_platform.launch.places import rank_environment
from l3_platform.settings import Stage
from l3_platform.train import TrainJob
from l3_platform.train.metrics import Mirror, Row, read, values_of
from l3_platform.train.mlflow_client import client_for

BAR_COST, BAR_WAIT = 0.02, 0.01
SHORT = 10  # steps


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    options = parser.parse_args(arguments)
    from l3_platform.orchestration.services import running_mlflow

    wholes: dict[str, list[float]] = {"torchrun alone": [], "asset with MLflow": []}
    around: dict[str, dict[int, list[float]]] = {how: {SHORT: [], options.steps: []} for how in wholes}
    in_dagster, in_server, in_trainer, waited = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with running_mlflow(home) as server:
            assert server is not None
            server.wait_ready()
            runs = dict(zip(wholes, (_alone, partial(_dagster, home)), strict=True))
            for number, how, steps in product(range(options.rounds), runs, (SHORT, options.steps)):
                run, place = runs[how], home / f"{how.split()[0]}-{number}-{steps}"
                job = _job(place, options.shape, steps, server.url if run is not _alone else "")
                served = _core_seconds(server.pid)
                whole, said = run(job)
                rows = read(job.folder)
                around[how][steps].append(whole - sum(row["seconds"] for row in rows))
                if steps == SHORT:
                    continue
                wholes[how].append(whole)
                if run is not _alone:
                    in_dagster.append(float(said.splitlines()[-1]))
                    in_server.append(_core_seconds(server.pid) - served)
                    again = _job(home / f"sent-{number}", options.shape, steps, server.url)
                    in_trainer.append(_sending(rows, again))
                    waited.append(sum(row["data_seconds"] for row in rows[5:]) / sum(row["seconds"] for row in rows[5:]))
    table = Table(
        "how", "seconds", "around the steps", f"of {SHORT} steps", title=f"{options.steps} steps of the {options.shape} shape"
    )
    for how, seconds in wholes.items():
        long, short = (" ".join(f"{one:.2f}" for one in around[how][steps]) for steps in (options.steps, SHORT))
        table.add_row(how, " ".join(f"{one:.1f}" for one in seconds), long, short)
    Console().print(table)
    alone, asset = map(min, wholes.values())
    least_alone, least_asset = (min(map(min, around[how].values())) for how in wholes)
    more = least_asset - least_alone
    print(f"Dagster and MLflow cost {asset / alone - 1:+.1%} of the whole (bar {BAR_COST:.0%})")
    parts = min(in_dagster), min(in_server), min(in_trainer)
    cores = SETTINGS.threads
    print(
        f"by parts: {more:+.2f} s around the steps, beside them {parts[0]:.2f} core seconds of Dagster's process, {parts[1]:.2f} "
        f"of the server and {parts[2]:.2f} of the trainer: {(more + sum(parts) / cores) / alone:+.1%} on {cores} cores, "
        f"{(more + sum(parts)) / alone:+.1%} where each of them holds up all threads"
    )
    print(f"steps waited {min(waited):.2%} of their time for data (bar {BAR_WAIT:.0%})")


def _job(folder: Path, shape: str, steps: int, uri: str = "") -> TrainJob:
    config, rows, seq_len = SHAPES[shape]
    batch, run = rows * seq_len, ""
    folder.mkdir()
    stream = folder / "tokens.bin"
    np.random.default_rng(0).integers(0, config.vocab_size, steps * batch).astype("<u4").tofile(stream)
    if uri:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri)
        run = client.create_run(client.create_experiment(folder.name)).info.run_id
    return TrainJob.from_settings(
        SETTINGS, folder=str(folder / "run"), output=str(folder / "model"), model=config, data={"web": (str(stream),)},
        shares={"web": 1.0}, bos_id=0, eos_id=1, total_tokens=steps * batch,
        ramp=(Stage(batch_tokens=batch, seq_len=seq_len),), mlflow_tracking_uri=uri, mlflow_run_id=run,
    )  # fmt: skip


def _core_seconds(pid: int) -> float:
    """Of a process and its children."""
    process = psutil.Process(pid)
    return sum(times.user + times.system for times in (one.cpu_times() for one in (process, *process.children(recursive=True))))


def _sending(rows: Sequence[Row], job: TrainJob) -> float:
    """Core seconds of this process to send the rows as a trainer's thread does, every few seconds."""
    before = time.process_time()
    client = client_for(job.mlflow_tracking_uri)
    pending, since = [], 0.0
    for row in rows:
        pending += values_of(row)
        since += row["seconds"]
        if since >= Mirror.SECONDS or row is rows[-1]:
            client.log(job.mlflow_run_id, pending)
            pending, since = [], 0.0
    return time.process_time() - before


def _alone(job: TrainJob) -> tuple[float, str]:
    path = Path(job.folder).with_name("job.json")
    job.write(path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    return _timed([*torchrun, "-m", "l3_platform.train", "--job", str(path)], rank_environment(SETTINGS.threads))


def _dagster(home: Path, job: TrainJob) -> tuple[float, str]:
    path = Path(job.folder).with_name("job.json")
    job.write(path)
    return _timed([sys.executable, "-m", "benchmarks.tracked_training", str(path)], {"L3_HOME": str(home)})


def _timed(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[float, str]:
    """Seconds, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | (environment or {}))
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
