"""Annotations that decide what is kept: URL policy, languages, heuristics, outlier tokens, personal data. Sidecars, a row a
document.

What needs numba loads on first use: it takes a second to import, and most callers need none of it.
"""

from typing import TYPE_CHECKING, Any

from l3_platform.curate.languages import languages
from l3_platform.curate.pii import mask, pii
from l3_platform.curate.url_policy import canonical_url, registered_domain, url_policy

if TYPE_CHECKING:
    from l3_platform.curate.given_words import quality, repetition
    from l3_platform.curate.heuristics import text_heuristics

__all__ = [
    "canonical_url",
    "languages",
    "mask",
    "pii",
    "quality",
    "registered_domain",
    "repetition",
    "text_heuristics",
    "url_policy",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    modules = {"quality": "given_words", "repetition": "given_words", "text_heuristics": "heuristics"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"l3_platform.curate.{modules[name]}"), name)
