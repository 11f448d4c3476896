"""The reference-quality classifier: fastText on "would this text be referenced by Wikipedia" (Llama 3, section 3.1.1).

An asset of its own: scores name the model that gave them, and a model trained elsewhere takes its place by one setting.
Its shard lists the labelled documents with the score that a model gave which had not seen them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from l3_platform.dedup.code import CODE_SHARE, code_share
from l3_platform.dedup.shards import Beside, Built, aligned, read_beside, step
from l3_platform.engine import Counts, Output, map_shards
from l3_platform.quality import fasttext_model
from l3_platform.quality.annotators import Annotator, LabelsError, annotator
from l3_platform.settings import Quality, Settings
from l3_platform.store import Dataset, Shard, Writer, files

MODEL_FILE = "quality.bin"
FOLDS = 3
SAMPLE = pa.schema([("doc_id", pa.uuid()), ("label", pa.bool_()), ("order", pa.uint64()), ("text", pa.string())])
SCHEMA = pa.schema([("doc_id", pa.uuid()), ("label", pa.bool_()), ("fold", pa.int8()), ("held_out_score", pa.float32())])


def build_quality_classifier(
    documents: Sequence[Dataset],
    url_versions: Sequence[Dataset],
    duplicate_documents: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """Train on a sample of the deduplicated documents, or take the file of `quality.model`. Raises LabelsError.

    Copies would be in two folds at once, so only representatives take part. Metrics: labels, whether they are
    simulated, their numbers and the ROC-AUC of the held-out scores.
    """
    quality = settings.quality
    if quality.model:
        if not files.exists(quality.model):
            raise LabelsError(f"quality.model: there is no file {quality.model}; give a fastText model, or leave it out")
        names = map_shards(given_model, {"model": quality.model}, out, settings.engine)
        return names, {"labels": "a given model", "simulated": False}
    beside = aligned(documents, url_versions=url_versions, duplicate_documents=duplicate_documents)
    labeller = annotator(quality)
    # doc_ids are hashes, so each shard holds about an equal part of the sample; the factor allows for uneven shards.
    quota = max(50, 4 * quality.sample_documents // max(1, len(beside)))
    take_sample = functools.partial(sample, labeller=labeller, quota=quota)
    samples = step(out, "sample", lambda writer: map_shards(take_sample, beside, writer, settings.engine))
    labels = pa.concat_tables([SAMPLE.empty_table(), *(shard.read() for shard in samples.shards)])["label"]
    enough(labels, labeller)
    names = map_shards(functools.partial(fit, quality=quality), {"model": samples}, out, settings.engine)
    table = Shard(out.folder, out.partition, "model").read()
    truth, scores = table["label"].to_numpy(), table["held_out_score"].to_numpy()
    return names, {
        "labels": labeller.name,
        "simulated": labeller.simulated,
        "referenced": int(truth.sum()),
        "other": int((~truth).sum()),
        "roc_auc": round(roc_auc(truth, scores), 4),
    }


def given_model(path: str) -> Output:
    content = files.read(path)
    fasttext_model.probabilities(fasttext_model.load(content), [])  # refuses what cannot score, now rather than later
    return Output(SCHEMA.empty_table(), Counts(), files={MODEL_FILE: content})


def sample(shards: Beside, labeller: Annotator, quota: int) -> Output:
    """SAMPLE rows: of each label the `quota` representatives, pages of code left out, whose hash of doc_id is smallest."""
    columns = {"url_versions": ["newest"], "duplicate_documents": ["representative"]}
    table = read_beside(shards, documents=["url", "text"], **columns)
    table = table.filter(pc.field("newest") & pc.field("representative"))
    prose = [code_share(text or "") < CODE_SHARE for text in table["text"].to_pylist()]
    table = table.filter(pa.array(prose, pa.bool_()))
    order = [xxhash.xxh3_64_intdigest(doc_id.bytes) for doc_id in table["doc_id"].to_pylist()]
    table = table.append_column("order", pa.array(order, pa.uint64())).append_column("label", labeller.label(table))
    chosen = smallest(table, quota)
    texts = pa.array([fasttext_model.prepared(text or "") for text in chosen["text"].to_pylist()], pa.string())
    chosen = pa.table([chosen["doc_id"], chosen["label"], chosen["order"], texts], schema=SAMPLE)
    return Output.annotated(chosen.filter(pc.field("text") != ""))


def smallest(table: pa.Table, quota: int) -> pa.Table:
    """Of each label the `quota` rows with the smallest `order`, in that order."""
    sides = [table.filter(pc.field("label") == value).sort_by("order").slice(0, quota) for value in (True, False)]
    return pa.concat_tables(sides).sort_by("order")


def enough(labels: pa.ChunkedArray, labeller: Annotator) -> None:
    for value, word in ((True, "referenced"), (False, "not referenced")):
        found = labels.to_pylist().count(value)
        if found < FOLDS:
            raise LabelsError(
                f"quality_classifier: {found} of {len(labels):,} sampled documents are labelled {word} "
                f"by {labeller.name}; at least {FOLDS} are needed: give quality.labels, or a model with quality.model"
            )


def fit(samples: Dataset, quality: Quality) -> Output:
    """The model over the whole sample, and for each fold the scores of a model that has not seen it."""
    chosen = smallest(samples.read(), quality.sample_documents // 2)
    texts, labels = chosen["text"].to_pylist(), chosen["label"].to_numpy()
    folds = _folds(labels)
    train = functools.partial(fasttext_model.train, dim=quality.dim, epochs=quality.epochs)
    scores = np.zeros(len(texts), np.float32)
    for fold in range(FOLDS):
        seen, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        model = fasttext_model.load(train([texts[row] for row in seen], labels[seen].tolist()))
        scores[held_out] = fasttext_model.probabilities(model, [texts[row] for row in held_out])
    table = pa.table([chosen["doc_id"], chosen["label"], pa.array(folds), pa.array(scores)], schema=SCHEMA)
    return Output(table, Counts.annotated(table.num_rows), files={MODEL_FILE: train(texts, labels.tolist())})


def _folds(labels: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Folds with equal shares of both labels: each label's rows, in order, take turns."""
    folds = np.zeros(len(labels), np.int8)
    for value in (True, False):
        rows = np.flatnonzero(labels == value)
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def roc_auc(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Area under the ROC curve: the chance that a true row scores above a false one, ties counting half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # mean rank of equal scores, from 1
    true, false = int(truth.sum()), int((~truth).sum())
    return float((rank[truth].sum() - true * (true + 1) / 2) / (true * false))
