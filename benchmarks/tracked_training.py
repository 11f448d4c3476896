"""Trains the job of a file as an asset, `python -m benchmarks.tracked_training JOB`, and prints the core seconds that it took here.

Apart from `tracking_cost.py`, which times it: this process imports what a user's would, and nothing of the benchmark's.
"""

import os
import sys
import time

import dagster as dg

from l3_platform.orchestration.instance import prepare_home
from l3_platform.orchestration.training import launched
from l3_platform.settings import Settings, Train
from l3_platform.train import TrainJob

SETTINGS = Train(nodes=1, processes_per_node=1, threads=2)


def main(path: str) -> None:
    job = TrainJob.read(path)
    used: list[float] = []

    @dg.asset
    def trained(context: dg.AssetExecutionContext) -> None:
        before = time.process_time()
        launched(context, Settings(train=SETTINGS), job)
        used.append(time.process_time() - before)

    prepare_home()
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([trained], instance=instance).success
    print(used[0], flush=True)
    os._exit(0)  # as `l3` ends


if __name__ == "__main__":
    main(sys.argv[1])
