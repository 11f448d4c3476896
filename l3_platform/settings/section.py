"""What every section of the settings is, and how a mistake in one is told."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError


class SettingsError(ValueError):
    """A profile or override that cannot be used; the message is meant for a person."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def first_mistake(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """The first thing that was wrong in what was to be a `model`, as one sentence; `prefix` goes before a field's name."""
    first = error.errors()[0]
    place, kind = first["loc"], first["type"]
    got = f" (got {first['input']!r})"
    if kind == "value_error":  # a validator's own sentence, which says of several values which is meant
        said = str(first.get("ctx", {})["error"]) + (got if isinstance(first["input"], str | float | int) else "")
    elif kind == "extra_forbidden":
        said = f"there is no such key{nearest(str(place[-1]), _keys(model, place[:-1]))}"
    elif kind == "model_type":
        keys = ", ".join(f'"{key}": ...' for key in _keys(model, place))
        said = f"should be {{{keys}}}{got}"
    elif kind == "tuple_type":
        said = f"should be a list{got}"
    else:
        said = first["msg"][0].lower() + first["msg"][1:] + got
    return f"setting {prefix}{'.'.join(map(str, place))}: {said}" if place else said


def _keys(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Those of the section at a place of the tree, in lists and tables too."""
    parts = iter(place)
    for name in parts:
        annotation = model.model_fields[str(name)].annotation
        if get_origin(annotation) in (tuple, dict):
            next(parts, None)
        kinds = (annotation, *get_args(annotation))
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the known one that it resembles, else all where they are few."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}" if len(known) < 40 else ""
