"""The shape that `model.preset` names."""

from __future__ import annotations

import dataclasses

from l3_platform.model.config import ModelConfig, presets
from l3_platform.settings import Settings, SettingsError, nearest


def preset(settings: Settings, vocab_size: int) -> ModelConfig:
    """The preset with another vocabulary. Raises SettingsError, naming the nearest, where there is none of that name."""
    name = settings.model.preset
    if name not in presets:
        raise SettingsError(f"setting model.preset: there is no preset {name!r}{nearest(name, list(presets))}")
    return dataclasses.replace(presets[name], vocab_size=vocab_size)
