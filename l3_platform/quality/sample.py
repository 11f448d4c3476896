"""The sample that a classifier learns from: deduplicated documents, chosen by hash, with an annotator's labels."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from l3_platform.dedup.code import CODE_SHARE, code_share
from l3_platform.dedup.shards import Beside, read_beside, step
from l3_platform.engine import Output, map_shards
from l3_platform.quality.annotators import ANSWERS, Annotator
from l3_platform.quality.learners import Learner
from l3_platform.quality.questions import Question
from l3_platform.settings import Engine
from l3_platform.store import Dataset, Writer

SAMPLE = pa.schema(
    [
        ("doc_id", pa.uuid()),
        ("order", pa.uint64()),  # hash of doc_id: the smallest are taken first
        *ANSWERS,
        ("text", pa.string()),  # as the learner reads it
    ]
)


def take_sample(
    beside: Mapping[str, Beside],
    question: Question,
    labeller: Annotator,
    learner: Learner,
    documents: int,
    out: Writer,
    engine: Engine,
) -> Dataset:
    """SAMPLE rows: what a free annotator labels, `documents` or more of each label as far as there are; else the
    `documents` that a costly one was asked about."""
    # doc_ids are hashes, so each shard holds about an equal part of the sample; the factor allows for uneven shards.
    share = documents / max(1, len(beside))
    quota = max(50, math.ceil(2 * share)) if labeller.free else math.ceil(share)
    of_shard = functools.partial(sample, question=question, labeller=labeller, learner=learner, quota=quota)
    return step(out, "sample", lambda writer: map_shards(of_shard, beside, writer, engine))


def sample(shards: Beside, question: Question, labeller: Annotator, learner: Learner, quota: int) -> Output:
    """Of the newest, not duplicated documents those whose hash of doc_id is smallest: `quota` of each label that is free,
    or `quota` in all to ask about."""
    table = read_beside(
        shards,
        documents=["url", "text", "formulas"],
        url_versions=["newest"],
        duplicate_documents=["representative"],
    )
    table = table.filter(pc.field("newest") & pc.field("representative"))
    fit = [bool(text and text.strip()) and _may_be_asked(question, text) for text in table["text"].to_pylist()]
    table = table.filter(pa.array(fit, pa.bool_()))
    order = [xxhash.xxh3_64_intdigest(doc_id.bytes) for doc_id in table["doc_id"].to_pylist()]
    table = table.append_column("order", pa.array(order, pa.uint64()))
    if not labeller.free:
        table = table.sort_by("order").slice(0, quota)
    answers = labeller.label(table)
    for field in ANSWERS:
        table = table.append_column(field, answers[field.name])
    chosen = smallest(table, quota) if labeller.free else table
    texts = pa.array([learner.prepared(text) for text in chosen["text"].to_pylist()], pa.string())
    chosen = chosen.set_column(chosen.schema.get_field_index("text"), "text", texts).select(SAMPLE.names).cast(SAMPLE)
    return Output.annotated(chosen.filter(pc.field("text") != ""))


def _may_be_asked(question: Question, text: str) -> bool:
    return not question.prose_only or code_share(text) < CODE_SHARE


def smallest(table: pa.Table, quota: int) -> pa.Table:
    """Of each label the `quota` rows with the smallest `order`, in that order."""
    sides = [table.filter(pc.field("label") == value).sort_by("order").slice(0, quota) for value in (True, False)]
    return pa.concat_tables(sides).sort_by("order")


def labelled(samples: pa.Table, labeller: Annotator, documents: int) -> pa.Table:
    """The rows to learn from, `documents` at most: of a free annotator as many of each label, of a costly one all answers."""
    if labeller.free:
        return smallest(samples, documents // 2)
    return samples.filter(pc.field("label").is_valid()).sort_by("order").slice(0, documents)


def cost(samples: pa.Table) -> dict[str, Any]:
    """What a costly annotator was asked, in numbers; the tokens are those of all answers, also of those kept from before."""
    return {
        "asked": samples.num_rows,
        "unanswered": dict(sorted(Counter(samples["reason"].drop_null().to_pylist()).items())),
        "prompt_tokens": sum(samples["prompt_tokens"].to_pylist()),
        "completion_tokens": sum(samples["completion_tokens"].to_pylist()),
    }
