"""A run that starts from a step checkpoint of another: where it stood, and what it had read of each domain.

Weights, optimizer state, step and token count go on as they were, and so does the data: under the same shares and
sequence length a branch reads what its parent would have read; under others it begins in each domain where the parent
had come to. A branch that changes nothing is therefore its parent's continuation, bit for bit. Free of torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l3_platform.train.spikes import Memory

_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Position:
    """Where a run stands: steps and tokens behind it, its parents' included, the training loss of the last step that reached
    the weights, and what its decisions about spikes depend on."""

    step: int = 0
    tokens: int = 0
    loss: float = float("nan")
    memory: Memory = field(default_factory=Memory)

    @property
    def updates(self) -> int:
        """Of the weights: steps that were not skipped."""
        return self.step - self.memory.skipped_steps

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Position:
        return cls(plain["step"], plain["tokens"], plain["loss"], Memory.from_json(plain["memory"]))


@dataclass(frozen=True)
class Origin:
    """What a branch takes over beside the tensors; what the parent has read is in its `data_plan.json`."""

    fingerprint: str  # of the parent's job
    position: Position


def complete(folder: str | Path) -> list[Path]:
    """Checkpoints of a run, newest first; those without `complete.json` do not exist. Any process may ask."""
    found = [path for path in Path(folder).glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if (path / "complete.json").exists()), key=lambda p: p.name, reverse=True)


def regular(folder: str | Path) -> list[Path]:
    """Those of `complete` that an undisturbed run has, too: not what a run saved because it was asked to stop."""
    return [path for path in complete(folder) if _facts(path).get("regular", True)]


def _facts(checkpoint: Path) -> dict[str, Any]:
    """Empty where they cannot be read: whoever loads the checkpoint finds that out and says so."""
    try:
        return json.loads((checkpoint / "complete.json").read_text())
    except (OSError, ValueError):
        return {}


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def read_origin(checkpoint: str | Path) -> Origin:
    """Of a checkpoint's folder, such as `.../step-00000123`. Raises ValueError, saying what to do, where there is none."""
    try:
        facts = json.loads((Path(checkpoint) / "complete.json").read_text())
        return Origin(facts["fingerprint"], Position.from_json(facts["position"]))
    except FileNotFoundError:
        raise ValueError(f"{checkpoint} is no complete checkpoint, so nothing can branch from it; run its parent again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{checkpoint}: complete.json does not say where the run stood ({error}): it is damaged or of an older version; "
            "run its parent again"
        ) from None
