"""The command line: questions about a corpus are answered without what only building it needs."""

import json
import subprocess
import sys

import pytest

HEAVY = {"dagster", "torch", "mlflow", "ray", "transformers", "numba", "scipy", "matplotlib", "fasttext", "datasketch"}


def loaded(*arguments: str) -> set[str]:
    """Modules of a fresh process that ran `l3` with these arguments."""
    program = (
        "import json, sys\nfrom l3_platform import cli\n"
        f"sys.argv = ['l3', *{list(arguments)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)  # whose status is that of l3
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("L3_HOME", str(tmp_path))


def test_a_sweep_starts_without_dagster_or_torch():
    modules = loaded("sweep", "heuristics.min_words=5")
    assert "l3_platform.sweep" in modules and not HEAVY & modules


def test_trained_on_starts_without_dagster_or_torch():
    modules = loaded("trained-on", "https://never.example/")
    assert "l3_platform.exposure" in modules and not HEAVY & modules


def test_why_starts_without_dagster_or_torch():
    modules = loaded("why", "https://never.example/")
    assert "l3_platform.story" in modules and not HEAVY & modules
