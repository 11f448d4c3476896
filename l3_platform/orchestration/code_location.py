"""The one place where the library reaches up to the composition root: the command line runs what Dagster's UI loads."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import dagster as dg

MODULE = "jobs.definitions"


@functools.cache
def definitions() -> dg.Definitions:
    return importlib.import_module(MODULE).definitions()


def workspace() -> Path:
    """The workspace.yaml beside the packages."""
    return Path(importlib.import_module(MODULE).__file__ or "").parents[1] / "workspace.yaml"


def check_keys() -> list[dg.AssetCheckKey]:
    return sorted(definitions().resolve_asset_graph().asset_check_keys, key=str)
