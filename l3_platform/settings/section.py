"""What every section of the settings is, and how a mistake in one is told."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class SettingsError(ValueError):
    """A profile or override that cannot be used; the message is meant for a person."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the known one that it resembles, else all where they are few."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}" if len(known) < 40 else ""
