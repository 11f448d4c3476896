"""What Dagster and MLflow cost a training: the same job by torchrun alone, and as an asset that logs to an MLflow server.

Both are whole processes, start-up and export included; the server is up before. Rounds alternate, and the faster of each counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.training import SHAPES
from l3_platform.launch.places import rank_environment
from l3_platform.settings import Settings, Stage, Train
from l3_platform.train import TrainJob
from l3_platform.train.metrics import read

SETTINGS = Train(nodes=1, processes_per_node=1, threads=2)
BAR_COST, BAR_WAIT = 0.02, 0.01


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--asset", metavar="JOB", help="train this job as an asset, in this process")
    options = parser.parse_args(arguments)
    if options.asset:
        _as_asset(TrainJob.read(options.asset))
        return
    from l3_platform.orchestration.services import running_mlflow

    seconds: dict[str, list[float]] = {"torchrun alone": [], "asset with MLflow": []}
    waited = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with running_mlflow(home) as server:
            assert server is not None
            server.wait_ready()
            for number in range(options.rounds):
                seconds["torchrun alone"].append(_alone(_job(home / f"alone-{number}", options)))
                job = _job(home / f"asset-{number}", options, server.url)
                seconds["asset with MLflow"].append(_dagster(home, job))
                rows = read(job.folder)[5:]
                waited.append(sum(row["data_seconds"] for row in rows) / sum(row["seconds"] for row in rows))
    table = Table("how", "seconds", title=f"{options.steps} steps of the {options.shape} shape, whole processes")
    for how, runs in seconds.items():
        table.add_row(how, f"{min(runs):.1f}")
    Console().print(table)
    alone, asset = (min(runs) for runs in seconds.values())
    print(f"Dagster and MLflow cost {asset / alone - 1:+.1%} (bar {BAR_COST:.0%})")
    print(f"steps waited {min(waited):.2%} of their time for data (bar {BAR_WAIT:.0%})")


def _job(folder: Path, options: argparse.Namespace, uri: str = "") -> TrainJob:
    config, rows, seq_len = SHAPES[options.shape]
    batch, run = rows * seq_len, ""
    folder.mkdir()
    stream = folder / "tokens.bin"
    np.random.default_rng(0).integers(0, config.vocab_size, options.steps * batch).astype("<u4").tofile(stream)
    if uri:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri)
        run = client.create_run(client.create_experiment(folder.name)).info.run_id
    return TrainJob.from_settings(
        SETTINGS, folder=str(folder / "run"), output=str(folder / "model"), model=config, data={"web": (str(stream),)},
        shares={"web": 1.0}, bos_id=0, eos_id=1, total_tokens=options.steps * batch,
        ramp=(Stage(batch_tokens=batch, seq_len=seq_len),), mlflow_tracking_uri=uri, mlflow_run_id=run,
    )  # fmt: skip


def _alone(job: TrainJob) -> float:
    path = Path(job.folder).with_name("job.json")
    job.write(path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    return _timed([*torchrun, "-m", "l3_platform.train", "--job", str(path)], rank_environment(SETTINGS.threads))


def _dagster(home: Path, job: TrainJob) -> float:
    path = Path(job.folder).with_name("job.json")
    job.write(path)
    return _timed([sys.executable, "-m", "benchmarks.tracking_cost", "--asset", str(path)], {"L3_HOME": str(home)})


def _as_asset(job: TrainJob) -> None:
    from l3_platform.orchestration.instance import prepare_home
    from l3_platform.orchestration.training import launched

    @dg.asset
    def trained(context: dg.AssetExecutionContext) -> None:
        launched(context, Settings(train=SETTINGS), job)

    prepare_home()
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([trained], instance=instance).success


def _timed(command: Sequence[str], environment: dict[str, str] | None = None) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | (environment or {}))
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1:])
