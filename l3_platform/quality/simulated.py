"""SIMULATED labels: rules that stand in for an annotator where there is none, as in the demo. Every report names them so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from l3_platform.dedup.code import MAX_CHARS, code_share
from l3_platform.quality.annotators import free_answers

Row = dict[str, Any]  # url, text, formulas


@dataclass(frozen=True)
class Rule:
    """An annotator that holds a document against a rule."""

    name: str
    holds: Callable[[Row], bool]
    simulated: bool = True
    free: bool = True

    def label(self, documents: pa.Table) -> pa.Table:
        rows = documents.select(["url", "text", "formulas"]).to_pylist()
        return free_answers(pa.array([self.holds(row) for row in rows], pa.bool_()))


_REFERENCE_WORDS = {"wiki", "wikipedia", "encyclopedia", "docs", "doc", "documentation", "reference", "manual"}
_REFERENCE_WORDS |= {"handbook", "textbook", "lectures", "edu", "ac", "gov"}
_URL_WORD = re.compile(r"[a-z]+")


def names_a_reference(row: Row) -> bool:
    """The host or the first folder names documentation or a work of reference.

    The paper has the links of Wikipedia's articles; a crawl without them has only this.
    """
    try:
        parts = urlsplit(row["url"] or "")
    except ValueError:  # crawls hold addresses that are none
        return False
    folder = parts.path.lstrip("/").partition("/")[0]
    words = _URL_WORD.findall(unquote(f"{parts.netloc} {folder}").lower())
    return not _REFERENCE_WORDS.isdisjoint(words)


CODE_AMONG_PROSE = 0.25  # of the characters, in lines that read as code


def shows_code(row: Row) -> bool:
    return code_share(row["text"] or "") >= CODE_AMONG_PROSE


MIN_STEPS, STEPS_PER_WORD = 3, 0.005
_STEP = re.compile(
    r"\b(?:because|therefore|hence|thus|impl(?:y|ies)|suppose|assum(?:e|ing)|consequently|it follows|follows (?:that|from)|"
    r"if and only if|such that|pro(?:of|ve|ves)|theorem|lemma|let \w be|we (?:have|obtain|conclude)|given that|solve|derived?)\b",
    re.IGNORECASE,
)


def reasons(row: Row) -> bool:
    """Formulas and words of deduction are dense."""
    text = (row["text"] or "")[:MAX_CHARS]
    steps = len(_STEP.findall(text)) + (row["formulas"] or 0)
    return steps >= MIN_STEPS and steps >= STEPS_PER_WORD * len(text.split())


RULES = {
    "quality": Rule("simulated: documentation and works of reference by URL", names_a_reference),
    "code": Rule("simulated: a quarter of the text in lines of code", shows_code),
    "reasoning": Rule("simulated: dense formulas and words of deduction", reasons),
}
