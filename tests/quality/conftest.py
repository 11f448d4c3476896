"""Small labelled corpora in memory, with the sidecars that the quality stages read."""

from __future__ import annotations

import functools
import itertools
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from l3_platform.quality.classifier import build_classifier
from l3_platform.quality.questions import Question
from l3_platform.quality.scores import build_scores
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Output, Writer

NUMBERS = itertools.count()
TYPES = {"newest": pa.bool_(), "representative": pa.bool_(), "formulas": pa.int32()}
TOPICS = {
    "docs": "the method returns an array of shape given by the parameter and raises an error when the axis is out of range",
    "shop": "buy now great price free shipping add to your cart best deal today only limited offer click here to order",
}


class Corpus:
    """Shards of (url, text, language, representative, formulas); stages run in this process."""

    def __init__(self, *shards: Sequence[dict[str, Any]], folder: str = "") -> None:
        self.folder = folder or f"memory://quality/{next(NUMBERS)}"
        self.pages = [page for shard in shards for page in shard]
        self.documents = [self._dataset("documents", shards, ("url", "text", "formulas"))]
        self.languages = [self._dataset("languages", shards, ("language",))]
        self.url_versions = [self._dataset("url_versions", shards, ("newest",))]
        self.duplicate_documents = [self._dataset("duplicate_documents", shards, ("representative",))]

    def _dataset(self, asset: str, shards: Sequence[Sequence[dict[str, Any]]], columns: Sequence[str]) -> Dataset:
        defaults = {"language": "en", "newest": True, "representative": True, "formulas": 0}
        out = self.writer(asset, "demo-1")
        for number, pages in enumerate(shards):
            rows = [{"doc_id": doc_id(page).bytes, **defaults, **page} for page in pages]
            ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([row["doc_id"] for row in rows], pa.binary(16)))
            arrays = {name: pa.array([row[name] for row in rows], TYPES.get(name, pa.string())) for name in columns}
            out.put(f"part-{number:05d}", Output.annotated(pa.table({"doc_id": ids, **arrays})))
        return out.commit([f"part-{number:05d}" for number in range(len(shards))])

    def writer(self, asset: str, partition: str = "all") -> Writer:
        return Writer(f"{self.folder}/{asset}/{partition}", asset, partition, code_version="1", settings={}, inputs={})

    def classifier(self, question: Question, settings: Settings) -> Dataset:
        sidecars = {"url_versions": self.url_versions, "duplicate_documents": self.duplicate_documents}
        return self.build(f"{question.name}_classifier", functools.partial(build_classifier, question), settings, **sidecars)

    def scores(self, question: Question, settings: Settings, classifier: Dataset) -> Dataset:
        stage = functools.partial(build_scores, question, classifier=[classifier])
        return self.build(f"{question.name}_scores", stage, settings)

    def build(self, name: str, stage: Callable[..., Any], settings: Settings, **inputs: Sequence[Dataset]) -> Dataset:
        out = self.writer(name)
        names, metrics = stage(documents=self.documents, **inputs, out=out, settings=settings)
        return out.commit(names, metrics)


def doc_id(page: dict[str, Any]) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, page["url"])


def labelled(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Pages of documentation and of a shop, told apart by URL and, not too easily, by words."""
    draw = random.Random(seed)
    pages = []
    for number in range(count):
        kind, other = draw.sample(sorted(TOPICS), 2)
        words = draw.choices(TOPICS[kind].split(), k=20) + draw.choices(TOPICS[other].split(), k=8)
        pages.append({"url": f"https://{kind}.example/{number}", "text": " ".join(words)})
    return pages


@pytest.fixture(scope="session")
def corpus() -> Callable[..., Corpus]:
    return Corpus


@pytest.fixture(scope="session")
def labelled_pages() -> Callable[..., list[dict[str, Any]]]:
    return labelled


@pytest.fixture(scope="session")
def id_of() -> Callable[[dict[str, Any]], uuid.UUID]:
    return doc_id
