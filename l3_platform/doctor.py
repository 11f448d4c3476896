"""What this machine lacks, in words, before a run finds out."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib import metadata

import psutil

from l3_platform.settings import home


@dataclass(frozen=True)
class Finding:
    ok: bool
    text: str
    needed: bool = True


def examine() -> list[Finding]:
    """Everything a run needs or can use; `needed` findings that are not ok stop the demo."""
    return [*_python(), *_packages(), *_machine(), *_ports(), *_tools()]


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    return [Finding(sys.version_info >= (3, 11), f"Python {version} (3.11 or newer is needed)")]


def _packages() -> list[Finding]:
    findings = []
    for name in (
        "dagster",
        "dagster-webserver",
        "dagster-dg-cli",
        "mlflow",
        "torch",
        "pyarrow",
        "duckdb",
        "fasttext",
        "tokenizers",
    ):
        try:
            findings.append(Finding(True, f"{name} {metadata.version(name)}"))
        except metadata.PackageNotFoundError:
            findings.append(Finding(False, f"{name} is not installed: run `make install`"))
    for extra, module in (("s3", "s3fs"), ("ray", "ray")):
        there = importlib.util.find_spec(module) is not None
        findings.append(Finding(there, f"extra `{extra}` is {'' if there else 'not '}installed", needed=False))
    return findings


def _machine() -> list[Finding]:
    root = home()
    place = root if root.exists() else root.parent
    free = shutil.disk_usage(place).free / 1e9
    memory = psutil.virtual_memory().available / 1e9
    return [
        Finding(free > 2, f"{free:.0f} GB of disk free for {root} (the demo needs 2)"),
        Finding(memory > 4, f"{memory:.0f} GB of memory available (the demo needs 4)"),
        Finding(os.access(place, os.W_OK), f"{place} can be written"),
        Finding(
            len(os.sched_getaffinity(0)) >= 2,
            f"{len(os.sched_getaffinity(0))} cores (2 make the demo pleasant)",
            needed=False,
        ),
    ]


def _ports() -> list[Finding]:
    return [
        Finding(
            _free(port),
            f"port {port} for {name} is {'free' if _free(port) else f'in use: give l3 up another with {option}'}",
            needed=False,
        )
        for name, port, option in (("Dagster", 3000, "--port"), ("MLflow", 5000, "--mlflow-port"))
    ]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _tools() -> list[Finding]:
    uses = {
        "chromium": "the browser test and the pictures of the README",
        "sbatch": "the Slurm launcher",
        "kubectl": "the Kubernetes launcher",
    }
    return [Finding(shutil.which(tool) is not None, f"{tool}: for {use}", needed=False) for tool, use in uses.items()]
