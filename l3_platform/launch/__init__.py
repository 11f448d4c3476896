"""Launching training: `run_training` and the `Launcher` protocol. Imports no torch; the trainers do that."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l3_platform.launch.local import launcher_for, run_training
    from l3_platform.launch.protocol import Launcher, State

__all__ = ["Launcher", "State", "launcher_for", "run_training"]

_LAZY = {"Launcher": "protocol", "State": "protocol", "launcher_for": "local", "run_training": "local"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
