"""A profile in TOML and overrides as `section.key=value` become one frozen tree."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from l3_platform.settings.section import Section, SettingsError, first_mistake, nearest
from l3_platform.settings.tree import Settings

PROFILES = Path(__file__).parents[1] / "profiles"


def home() -> Path:
    """The one root of run-time state, `L3_HOME` or `.l3`, absolute. Not created here."""
    return Path(os.environ.get("L3_HOME") or ".l3").absolute()


def load(profile: str = "demo", overrides: Sequence[str] | Mapping[str, Any] = ()) -> Settings:
    """Settings of a profile with `section.key=value` overrides. Raises SettingsError."""
    path = PROFILES / f"{profile}.toml"
    known = sorted(p.stem for p in PROFILES.glob("*.toml"))
    if profile not in known:
        raise SettingsError(f"profile {profile!r} does not exist; there are {', '.join(known)}{nearest(profile, known)}")
    tree: dict[str, Any] = tomllib.loads(path.read_text()) | {"profile": profile}
    items = overrides.items() if isinstance(overrides, Mapping) else (_split(item) for item in overrides)
    for key, value in items:
        _put(tree, key, value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(first_mistake(error, Settings)) from None


def _split(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise SettingsError(f"override {item!r} is not of the form section.key=value")
    return key.strip(), value.strip()


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, key = dotted.partition(".")
    sections = [name for name in Settings.model_fields if name != "profile"]
    if section not in sections:
        raise SettingsError(f"setting {dotted!r}: there is no section {section!r}{nearest(section, sections)}")
    model = Settings.model_fields[section].annotation
    assert isinstance(model, type) and issubclass(model, Section)
    if key not in model.model_fields:
        raise SettingsError(f"setting {dotted!r}: {section} has no key {key!r}{nearest(key, list(model.model_fields))}")
    tree.setdefault(section, {})[key] = _parse(value, str(model.model_fields[key].annotation))


def _parse(value: Any, annotation: str) -> Any:
    """A command-line string as what the field wants: JSON where it reads as JSON, `a,b` for tuples, else the string."""
    if not isinstance(value, str):
        return value
    if annotation.startswith("tuple") and not value.startswith("["):
        return [_scalar(part) if "str" not in annotation else part for part in value.split(",") if part]
    return value if annotation == "<class 'str'>" else _scalar(value)


def _scalar(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
