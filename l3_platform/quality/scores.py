"""A classifier's word on each document: its probability, and its decile in the corpus."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.dedup.code import code_shares
from l3_platform.dedup.shards import Beside, Built, aligned, read_beside, step
from l3_platform.engine import Output, map_actors, map_shards
from l3_platform.quality.classifier import model_files
from l3_platform.quality.learners import Learner, LearnerError, learner
from l3_platform.quality.questions import Question
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Shard, Writer

SCHEMA = pa.schema(
    [
        ("doc_id", pa.uuid()),
        ("score", pa.float32()),  # probability of the question's positive; 0 for a text with nothing to read; null without a model
        ("bucket", pa.int8()),  # decile of the score in the corpus, 9 the best; null without a model
        ("code_share", pa.float32()),  # of the characters; the more, the less a classifier of prose can say
        ("model", pa.string()),  # digest of the model's files, or null
    ]
)
BUCKETS = 10
BATCH = 512  # texts a call of the model

# Scores crowd at 0 and 1: deciles are read off a histogram over log-odds, whose counts add up in any order.
LOG_ODDS = np.linspace(-12.0, 12.0, 4801)


def build_scores(
    question: Question, documents: Sequence[Dataset], classifier: Sequence[Dataset], *, out: Writer, settings: Settings
) -> Built:
    """Score every document, then place each score among the corpus's deciles; their edges are in the metrics.

    Of a classifier that was not trained, the scores are null and the edges none.
    """
    beside = aligned(documents)
    if "untrained" in classifier[0].manifest.metrics:
        return map_shards(unscored, beside, out, settings.engine), {"bucket_edges": []}
    learns = learner(question, classifier[0].manifest.metrics["kind"], settings)
    model = functools.partial(Scorer, learns, classifier[0])
    scored = step(out, "scores", lambda writer: map_actors(model, beside, writer, settings.engine))
    edges = decile_edges([shard.read(["score"])["score"].to_numpy() for shard in scored.shards])
    shards = {shard.name: shard for shard in scored.shards}
    names = map_shards(functools.partial(with_buckets, edges=edges), shards, out, settings.engine)
    return names, {"bucket_edges": edges}


def unscored(shards: Beside) -> Output:
    table = read_beside(shards, documents=["text"])
    known = {"doc_id": table["doc_id"], "code_share": _code_shares(table)}
    columns = [known.get(column.name, pa.nulls(table.num_rows, column.type)) for column in SCHEMA]
    return Output.annotated(pa.table(columns, schema=SCHEMA))


class Scorer:
    """The model in a worker's memory: `Scorer(learner, classifier)(shards) -> Output` with all of SCHEMA but `bucket`."""

    def __init__(self, learns: Learner, classifier: Dataset) -> None:
        content = model_files(classifier)
        self.learns, self.model, self.version = learns, learns.load(content), version(content)

    def __call__(self, shards: Beside) -> Output:
        table = read_beside(shards, documents=["text"])
        columns = {
            "doc_id": table["doc_id"],
            "score": pa.array(self._scores([text or "" for text in table["text"].to_pylist()])),
            "code_share": _code_shares(table),
            "model": pa.repeat(self.version, table.num_rows),
        }
        return Output.annotated(pa.table(columns))

    def _scores(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        prepared = [self.learns.prepared(text) for text in texts]
        read = [row for row, text in enumerate(prepared) if text]
        scores = np.zeros(len(texts), np.float32)
        for first in range(0, len(read), BATCH):
            rows = read[first : first + BATCH]
            scores[rows] = self.model.probabilities([prepared[row] for row in rows])
        if not np.isfinite(scores).all():
            raise LearnerError(f"model {self.version} gives scores that are no numbers; train it again or give another")
        return scores


def _code_shares(table: pa.Table) -> pa.Array:
    return pa.array(code_shares(table["text"]), pa.float32())


def version(content: dict[str, bytes]) -> str:
    """16 hex digits for the files of a model."""
    digest = hashlib.sha256()
    for name, data in sorted(content.items()):
        digest.update(f"{name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def decile_edges(parts: Sequence[npt.NDArray[np.float32]]) -> list[float]:
    """The nine scores between ten equal buckets, to the resolution of LOG_ODDS; the same in any order of parts."""
    histogram = np.zeros(len(LOG_ODDS) + 1, np.int64)
    for scores in parts:
        histogram += np.bincount(np.searchsorted(LOG_ODDS, _log_odds(scores)), minlength=len(histogram))
    total = np.cumsum(histogram)
    cuts = [int(np.searchsorted(total, total[-1] * decile / BUCKETS)) for decile in range(1, BUCKETS)]
    return [round(float(1 / (1 + np.exp(-LOG_ODDS[min(cut, len(LOG_ODDS) - 1)]))), 9) for cut in cuts]


def _log_odds(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    chance = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(chance / (1 - chance))


def with_buckets(shard: Shard, edges: Sequence[float]) -> Output:
    table = shard.read()
    bucket = np.searchsorted(np.array(edges), table["score"].to_numpy()).astype(np.int8)
    return Output.annotated(table.append_column("bucket", pa.array(bucket)).select(SCHEMA.names).cast(SCHEMA))
