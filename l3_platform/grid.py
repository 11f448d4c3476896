"""The points of a sweep: every combination of the values to try, of settings that the decision alone uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from l3_platform.lineage import STAGES
from l3_platform.mix.rules import SETTINGS
from l3_platform.settings import Settings, SettingsError

MAX_POINTS = 64

Load = Callable[[Sequence[str]], Settings]  # the present settings with further overrides


def grid(variations: Sequence[str], load: Load) -> list[tuple[dict[str, Any], Settings]]:
    """Every combination of the values: what is varied, and the whole tree of settings."""
    values: dict[str, list[str]] = {}
    for variation in variations:
        path, equals, listed = variation.partition("=")
        choices = split(listed)
        if not equals or not choices:
            raise SettingsError(f"{variation!r} is not of the form section.key=value,value")
        values.setdefault(path.strip(), []).extend(choices)
    load([f"{path}={choices[0]}" for path, choices in values.items()])  # names the nearest key for a setting that is none
    for path in values:
        if path not in SETTINGS:
            raise SettingsError(_not_the_decisions(path))
    points = list(itertools.product(*values.values()))
    if not points or len(points) > MAX_POINTS:
        raise SettingsError(f"a sweep has 1 to {MAX_POINTS} points, this one {len(points)}; give fewer values")
    loaded = [load([f"{path}={value}" for path, value in zip(values, point, strict=True)]) for point in points]
    return [({path: setting(settings, path) for path in values}, settings) for settings in loaded]


def split(listed: str) -> list[str]:
    """At commas, but not at those inside brackets: `["en"],["en","de"]` are two values."""
    parts, depth = [""], 0
    for char in listed:
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def setting(settings: Settings, path: str) -> Any:
    section, _, key = path.partition(".")
    return getattr(getattr(settings, section), key)


def _not_the_decisions(path: str) -> str:
    known = f"a sweep can vary {', '.join(SETTINGS)}"
    section = path.partition(".")[0]
    makers = [name for name in _before("curated_documents") if {section, path} & set(STAGES[name].settings)]
    if not makers:
        return f"{path} has no say in what is kept; {known}"
    verb = "makes" if len(makers) == 1 else "make"
    return (
        f"{path} changes what {' and '.join(makers)} {verb}, so no sidecar answers: rebuild with "
        f"`l3 run --select '{makers[0]}+' --set {path}=...`; {known}"
    )


def _before(stage: str) -> list[str]:
    needed = {stage}
    for name in reversed(STAGES):
        if name in needed:
            needed |= set(STAGES[name].inputs)
    return [name for name in STAGES if name in needed]
