"""What is asked of Slurm, and how `l3 manifest` shows it."""

import re
from pathlib import Path

from typer.testing import CliRunner

from l3_platform.cli import app
from l3_platform.launch.protocol import job_name
from l3_platform.launch.sbatch import WARNED_SECONDS, script
from l3_platform.settings import Slurm, Train, load


def directives(text: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE)
    return dict(found)


def test_the_405b_profile_asks_for_16_384_gpus_and_time_for_a_checkpoint() -> None:
    settings = load("llama3-405b", ["slurm.partition=h100", "slurm.time_limit=7-00:00:00"])
    asked = directives(script(Path("/l3/checkpoints/pretrained-1"), settings.train, settings.slurm))
    assert int(asked["nodes"]) * int(asked["gpus-per-node"]) == 16_384
    assert (asked["partition"], asked["time"]) == ("h100", "7-00:00:00") and "requeue" in asked
    signal, _, before = asked["signal"].partition("@")
    assert signal == "B:TERM" and int(before) > settings.train.shutdown_seconds + 60, "Slurm may be a minute early"
    assert f"export {WARNED_SECONDS}={int(before) + 60}" in script(Path("/l3/run"), settings.train, settings.slurm).splitlines()


def test_what_is_not_set_is_not_asked_for() -> None:
    asked = directives(script(Path("/l3/run"), Train(), Slurm()))
    assert not {"partition", "account", "qos", "time", "gpus-per-node", "cpus-per-task", "exclusive"} & asked.keys()


def test_further_options_and_lines_of_shell_come_before_training() -> None:
    lines = script(Path("/l3/run"), Train(), Slurm(options=("--reservation=llama",), setup=("module load cuda",))).splitlines()
    assert lines.index("#SBATCH --reservation=llama") < lines.index("module load cuda") < len(lines) - 1
    assert lines[-1].startswith("exec ") and lines[-1].endswith("l3_platform.launch.batch /l3/run")


def test_folders_of_one_name_are_different_jobs() -> None:
    names = {job_name(Path(parent) / "pretrained-0123") for parent in ("/a", "/b")}
    assert len(names) == 2 and all(re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name) for name in names)


def test_l3_manifest_prints_what_would_be_submitted() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["manifest", "-p", "llama3-8b"]).stdout.startswith("#!/bin/bash\n#SBATCH --job-name=l3-pretrained")
    kubernetes = ["train.launcher=kubernetes", "kubernetes.image=l3", "kubernetes.claim=home"]
    shown = runner.invoke(app, ["manifest", *(part for one in kubernetes for part in ("--set", one))]).stdout
    assert shown.startswith("apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\n")
