"""Annotations that decide what is kept: URL policy, languages, heuristics, personal data. Sidecars, a row a document.

`text_heuristics` loads on first use: numba takes a second to import, and most callers need none of it.
"""

from typing import TYPE_CHECKING, Any

from l3_platform.curate.languages import languages
from l3_platform.curate.pii import mask, pii
from l3_platform.curate.url_policy import canonical_url, registered_domain, url_policy

if TYPE_CHECKING:
    from l3_platform.curate.heuristics import text_heuristics

__all__ = ["canonical_url", "languages", "mask", "pii", "registered_domain", "text_heuristics", "url_policy"]


def __getattr__(name: str) -> Any:
    if name != "text_heuristics":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from l3_platform.curate.heuristics import text_heuristics

    return text_heuristics
