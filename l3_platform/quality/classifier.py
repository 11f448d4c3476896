"""A classifier of documents: trained on an annotated sample, cross-validated, kept with what it was judged by.

An asset of its own: scores name the model that gave them, and a model trained elsewhere takes its place by one setting.
Its shard lists the labelled documents with the score that a model gave which had not seen them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.dedup.shards import Built, aligned, step
from l3_platform.engine import Counts, Output, map_shards
from l3_platform.quality.annotators import Annotator, LabelsError, annotator
from l3_platform.quality.calibration import expected_calibration_error, reliability, roc_auc
from l3_platform.quality.learners import Learner, learner
from l3_platform.quality.questions import Question
from l3_platform.quality.sample import cost, labelled, take_sample
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Shard, Writer, files

FOLDS = 3
WHOLE = "whole"  # what is trained on all folds
SCHEMA = pa.schema([("doc_id", pa.uuid()), ("label", pa.bool_()), ("fold", pa.int8()), ("held_out_score", pa.float32())])


def build_classifier(
    question: Question,
    documents: Sequence[Dataset],
    url_versions: Sequence[Dataset],
    duplicate_documents: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """Train on a sample of the deduplicated documents, or take the given model. Raises LabelsError and LearnerError.

    Copies would be in two folds at once, so only representatives take part. A crawl with too few labels of a kind trains no
    model, and its documents get no score: the metric `untrained` says why. Where the question decides, that is an error.
    Metrics: the labels, whether they are simulated, their numbers and cost, ROC-AUC and calibration of the held-out scores.
    """
    own = question.settings(settings)
    learns = learner(question, own.kind, settings)
    if own.model:
        names = map_shards(functools.partial(given_model, question, learns), {"model": own.model}, out, settings.engine)
        return names, {"kind": own.kind, "model": "given", "labels": "of a given model", "simulated": False}
    labeller = annotator(question, settings)
    beside = aligned(documents, url_versions=url_versions, duplicate_documents=duplicate_documents)
    samples = take_sample(beside, question, labeller, learns, own.sample_documents, out, settings.engine)
    read_labelled = functools.partial(_read_labelled, samples, labeller, own.sample_documents)
    origin = {"kind": own.kind, "model": learns.name, "labels": labeller.name, "simulated": labeller.simulated}
    if lacking := too_few(read_labelled(["label", "order"])["label"], question, labeller):
        if question.decides:
            raise LabelsError(lacking)
        return map_shards(untrained, {"model": None}, out, settings.engine, here=True), origin | {
            "model": "none",
            "untrained": lacking,
        }
    tasks: dict[str, int | None] = {WHOLE: None} | {f"fold-{fold}": fold for fold in range(FOLDS)}
    train = functools.partial(fit, learns=learns, read_labelled=read_labelled)
    fits = step(out, "fits", lambda writer: map_shards(train, tasks, writer, settings.engine))
    names = map_shards(joined, {"model": fits}, out, settings.engine)
    asked = {} if labeller.free else cost(samples.read(["reason", "prompt_tokens", "completion_tokens"]))
    judged = _judged(question, Shard(out.folder, out.partition, "model").read())
    return names, origin | asked | judged


def given_model(question: Question, learns: Learner, path: str) -> Output:
    try:
        content = learns.given(path)
    except FileNotFoundError as error:
        raise LabelsError(
            f"{question.name}.model: there is no file {error.filename or path}; give a trained model of kind "
            f"{question.name}.kind, or leave it out"
        ) from None
    learns.load(content)  # refuses what cannot score, now rather than later
    return Output(SCHEMA.empty_table(), Counts(), files=content)


def _read_labelled(samples: Dataset, labeller: Annotator, documents: int, columns: Sequence[str] | None = None) -> pa.Table:
    return labelled(samples.read(columns), labeller, documents)


def untrained(nothing: None) -> Output:
    return Output(SCHEMA.empty_table(), Counts())


def too_few(labels: pa.ChunkedArray, question: Question, labeller: Annotator) -> str:
    """A sentence where one of both labels is rarer than the folds need; else empty."""
    for value, word in ((True, question.positive), (False, f"not {question.positive}")):
        found = labels.to_pylist().count(value)
        if found < FOLDS:
            return (
                f"{question.name}_classifier: {found} of {len(labels):,} sampled documents are labelled {word} by "
                f"{labeller.name}; at least {FOLDS} are needed: give {question.name}.labels, or a model with {question.name}.model"
            )
    return ""


def fit(fold: int | None, learns: Learner, read_labelled: Callable[[], pa.Table]) -> Output:
    """A model that has not seen `fold`, as the scores it gives to the fold; without one, the files of the whole's."""
    chosen = read_labelled()
    texts, labels = chosen["text"].to_pylist(), chosen["label"].to_numpy()
    chosen = chosen.drop_columns(["text"])  # once is enough: a sample may be a large part of a worker's memory
    pa.default_memory_pool().release_unused()
    if fold is None:
        return Output(SCHEMA.empty_table(), Counts(), files=learns.train(texts, labels.tolist()))
    folds = _folds(labels)
    seen, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    model = learns.load(learns.train([texts[row] for row in seen], labels[seen].tolist()))
    scores = model.probabilities([texts[row] for row in held_out])
    rows = chosen.take(held_out)
    return Output.annotated(pa.table([rows["doc_id"], rows["label"], pa.array(folds[held_out]), pa.array(scores)], schema=SCHEMA))


def joined(fits: Dataset) -> Output:
    """One shard with the scores of all folds and the files of the whole's model."""
    table = fits.read().sort_by([("fold", "ascending"), ("held_out_score", "descending")])
    return Output(table, Counts.annotated(table.num_rows), files=model_files(fits))


def model_files(classifier: Dataset) -> dict[str, bytes]:
    names = [name.removeprefix("files/") for name in classifier.files]
    return {name: files.read(classifier.file(name)) for name in names}


def _folds(labels: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Folds with equal shares of both labels: each label's rows, in order, take turns."""
    folds = np.zeros(len(labels), np.int8)
    for value in (True, False):
        rows = np.flatnonzero(labels == value)
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def _judged(question: Question, table: pa.Table) -> dict[str, Any]:
    truth, scores = table["label"].to_numpy(), table["held_out_score"].to_numpy()
    bins = reliability(truth, scores)
    return {
        question.positive: int(truth.sum()),
        "other": int((~truth).sum()),
        "roc_auc": round(roc_auc(truth, scores), 4),
        "calibration_error": round(expected_calibration_error(bins), 4),
        "calibration": bins,
    }
