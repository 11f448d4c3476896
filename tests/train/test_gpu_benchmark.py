"""benchmarks/gpu_training.py runs where there is no GPU, so that it does not fail first where one is lent."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_gpu_benchmark_runs_at_toy_sizes_on_a_cpu_without_dagster_and_mlflow() -> None:
    code = (
        "import sys; from benchmarks.gpu_training import main; code = main(['--tiny']);"
        "assert not {'dagster', 'mlflow'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert "ours, flex                     left out: train.attention=flex has no backward pass on a CPU" in done.stdout
    assert done.stdout.count("tokens in documents: result and gradients differ by") == 2
    assert "ours, dense mask   beside ours, across documents" in done.stdout
