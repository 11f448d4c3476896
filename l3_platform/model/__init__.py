"""Llama 3: shapes (free of torch), architecture, and weights in Hugging Face's layout. torch loads on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from l3_platform.model.config import ModelConfig, RopeScaling, parameters, presets, shape_for

if TYPE_CHECKING:
    from l3_platform.model.export import export_model, load_exported
    from l3_platform.model.generation import generate
    from l3_platform.model.hugging_face import read_config
    from l3_platform.model.llama import Llama

__all__ = [
    "Llama",
    "ModelConfig",
    "RopeScaling",
    "export_model",
    "generate",
    "load_exported",
    "parameters",
    "presets",
    "read_config",
    "shape_for",
]

_LAZY = {
    "Llama": "llama",
    "export_model": "export",
    "generate": "generation",
    "load_exported": "export",
    "read_config": "hugging_face",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
