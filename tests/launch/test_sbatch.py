"""What is asked of Slurm, and how `l3 manifest` shows it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from l3_platform.cli import app
from l3_platform.launch import run_training
from l3_platform.launch.interruptions import read_interruptions
from l3_platform.launch.protocol import job_name
from l3_platform.launch.sbatch import WARNED_SECONDS, script
from l3_platform.settings import SettingsError, Slurm, Train, load
from l3_platform.train import TrainingError, TrainJob


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


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("squeue", r"squeue said 'slurm_load_jobs error: Unable to contact slurm controller'; run where `squeue` works"),
        ("sbatch", r"sbatch said 'Batch job submission failed: Invalid account'; correct section slurm"),
    ],
)
def test_a_slurm_that_does_not_answer_or_refuses_is_one_sentence_with_a_next_step(
    tool: str, words: str, make_job: Callable[[Path], TrainJob], tmp_path: Path, settings: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "squeue": "squeue: error: resolve_ctls_from_dns_srv: res_nsearch error: Host name lookup failure\n"
        "slurm_load_jobs error: Unable to contact slurm controller\n",
        "sbatch": "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid account\n",
    }
    for name in ("squeue", "sbatch", "scancel"):
        (tmp_path / name).write_text(f"#!/bin/sh\ncat >&2 <<END\n{said[tool]}END\nexit 1\n" if name == tool else "#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    job = make_job(tmp_path)
    with pytest.raises(TrainingError, match=f"^train.launcher=slurm: {words}[^\n]*$"):
        run_training(job, settings.model_copy(update={"launcher": "slurm"}), Slurm())
    assert read_interruptions(job.folder) == []


def test_l3_manifest_refuses_a_training_that_there_is_not() -> None:
    refused = CliRunner().invoke(app, ["manifest", "pretraind"]).exception
    assert isinstance(refused, SettingsError) and str(refused) == "'pretraind' is no training; did you mean 'pretrained'?"


@pytest.mark.parametrize(
    ("profile", "override", "says"),
    [
        ("llama3-405b", "train.tensor_parallel=7", "16384 ranks cannot hold whole models of 224 ranks"),
        ("llama3-405b", "train.tensor_parallel=16", "8 KV heads cannot be cut over 16 tensor-parallel ranks"),
        ("llama3-405b", 'long_context.stages=[{"seq_len": 64, "tokens": 64, "batch_tokens": 64, "context_parallel": 4096}]',
         "16384 ranks cannot hold whole models of 524288 ranks"),
        ("demo", "train.context_parallel=3", "2 ranks cannot hold whole models of 3 ranks"),
        ("demo", "model.preset=7b", "no preset '7b'; did you mean '70b'?"),
    ],
)  # fmt: skip
def test_l3_manifest_refuses_a_mesh_that_training_would_refuse(profile: str, override: str, says: str) -> None:
    refused = CliRunner().invoke(app, ["manifest", "-p", profile, "--set", override]).exception
    assert isinstance(refused, SettingsError) and says in str(refused)
