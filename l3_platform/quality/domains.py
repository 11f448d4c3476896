"""Knowledge domain of each document (Llama 3, section 3.1.2): a topic for re-weighting, and its group in the data mix.

The model is transparent: a topic's score is the weight of its words that occur, a word weighing less the more topics
list it, and a topic less whose words tell form more than subject; `topics.json` is the whole of it. Groups follow the
mix of the paper: documents in other languages are `multilingual`, pages that are mostly code `code`, those dense in
formulas or words of mathematics `math`, all others `general`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from l3_platform.dedup.code import CODE_SHARE, MAX_CHARS, code_share
from l3_platform.dedup.shards import Beside, Built, aligned, read_beside
from l3_platform.engine import Output, map_shards
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Writer

SCHEMA = pa.schema([("doc_id", pa.uuid()), ("topic", pa.string()), ("topic_score", pa.float32()), ("domain_group", pa.string())])
GROUPS = ("general", "math", "code", "multilingual")
ENGLISH = ("en", "und")  # a text without a language (code, formulas) is no foreign one
OTHER = "other"  # the topic of a document with too little evidence

MIN_EVIDENCE = 3  # distinct words of a topic
URL_WEIGHT = 4  # occurrences that a word of the URL is worth
FORMULAS_PER_WORD = 0.01
MATH_WORDS = 0.03  # share of words that are mathematics'

_WORD = re.compile(r"[a-z]{2,}")


def build_knowledge_domains(
    documents: Sequence[Dataset], languages: Sequence[Dataset], *, out: Writer, settings: Settings
) -> Built:
    """Topic, its score and the group of every document."""
    beside = aligned(documents, languages=languages)
    return map_shards(knowledge_domains, beside, out, settings.engine), {}


def knowledge_domains(shards: Beside) -> Output:
    table = read_beside(shards, documents=["url", "text", "formulas"], languages=["language"])
    columns = (table[name].to_pylist() for name in ("url", "text", "formulas", "language"))
    found = [
        (*topic_of(text or "", url or ""), group_of(text or "", formulas or 0, language or "und"))
        for url, text, formulas, language in zip(*columns, strict=True)
    ]
    topics, scores, groups = zip(*found, strict=True) if found else ((), (), ())
    arrays = [
        table["doc_id"],
        pa.array(topics, pa.string()),
        pa.array(scores, pa.float32()),
        pa.array(groups, pa.string()),
    ]
    return Output.annotated(pa.table(arrays, schema=SCHEMA))


def topic_of(text: str, url: str = "") -> tuple[str, float]:
    """The topic with the most evidence and its share of all evidence; OTHER and 0 where there is too little."""
    model = topic_model()
    found: dict[str, float] = {}
    evidence: Counter[str] = Counter()
    counts = Counter(_WORD.findall(text[:MAX_CHARS].lower()))
    for word, count in counts.items():
        for topic in model.words.get(word, ()):
            found[topic] = found.get(topic, 0.0) + model.weight(word) * math.log2(1 + count)
            evidence[topic] += 1
    for word in _WORD.findall(url.lower()):
        for topic in model.url_words.get(word, ()):
            found[topic] = found.get(topic, 0.0) + math.log2(1 + URL_WEIGHT)
            evidence[topic] += 1
    found = {topic: model.weights[topic] * score for topic, score in found.items()}
    ranked = sorted((-score, topic) for topic, score in found.items() if evidence[topic] >= MIN_EVIDENCE)
    if not ranked:
        return OTHER, 0.0
    score, topic = ranked[0]
    return topic, -score / sum(found.values())


def group_of(text: str, formulas: int, language: str) -> str:
    """One of GROUPS."""
    if language not in ENGLISH:
        return "multilingual"
    if code_share(text) >= CODE_SHARE:
        return "code"
    words = _WORD.findall(text[:MAX_CHARS].lower())
    dense = sum(word in mathematics() for word in words) >= MATH_WORDS * max(1, len(words))
    # The count of formulas is the whole text's, so its words are too.
    formulated = formulas >= MIN_EVIDENCE and formulas >= FORMULAS_PER_WORD * len(text.split())
    return "math" if dense or formulated else "general"


@dataclass(frozen=True)
class TopicModel:
    weights: dict[str, float]  # of each topic
    words: dict[str, tuple[str, ...]]  # word to the topics that list it
    url_words: dict[str, tuple[str, ...]]

    def weight(self, word: str) -> float:
        return math.log2(1 + len(self.weights) / len(self.words[word]))


@functools.cache
def topic_model() -> TopicModel:
    source = json.loads(Path(__file__).with_name("topics.json").read_text(encoding="utf-8"))
    weights = {topic: entry.get("weight", 1.0) for topic, entry in source.items()}
    return TopicModel(weights, _listing(source, "words"), _listing(source, "url_words"))


@functools.cache
def mathematics() -> frozenset[str]:
    return frozenset(word for word, topics in topic_model().words.items() if "mathematics" in topics)


def _listing(source: dict[str, dict[str, Any]], key: str) -> dict[str, tuple[str, ...]]:
    words = {word for entry in source.values() for word in entry[key].split()}
    return {word: tuple(topic for topic in source if word in source[topic][key].split()) for word in sorted(words)}
