"""Who labels documents for a classifier: a simulated rule, a file of labels, a model behind HTTP; one protocol."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from l3_platform.quality.questions import Question
from l3_platform.settings import Settings

ANSWERS = pa.schema(
    [
        ("label", pa.bool_()),  # null: no answer
        ("reason", pa.string()),  # why there is none, where one was asked for
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
    ]
)


class LabelsError(ValueError):
    """Labels that a classifier cannot be trained on; the message is meant for a person."""


class Annotator(Protocol):
    """Labels documents. Picklable: it works in the process that reads the shard."""

    @property
    def name(self) -> str: ...

    @property
    def simulated(self) -> bool:
        """True where the labels stand in for real ones; every report of the classifier must say so."""
        ...

    @property
    def free(self) -> bool:
        """True where an answer costs nothing: every document is then asked about, so that both labels can be sampled alike."""
        ...

    def label(self, documents: pa.Table) -> pa.Table:
        """ANSWERS, a row for each of `documents` (doc_id, url, text, formulas)."""
        ...


def annotator(question: Question, settings: Settings) -> Annotator:
    """The one that `labels` of the question's section names. Raises LabelsError where it lacks settings."""
    from l3_platform.quality.endpoint import Endpoint
    from l3_platform.quality.label_file import FileLabels
    from l3_platform.quality.simulated import RULES

    labels = question.settings(settings).labels
    if labels == "simulated":
        return RULES[question.name]
    if labels == "endpoint":
        return Endpoint.of(question, settings)
    return FileLabels(labels, setting=f"{question.name}.labels")


def free_answers(labels: pa.Array) -> pa.Table:
    """ANSWERS of an annotator that gives no reasons and costs nothing."""
    nothing = pa.array([0] * len(labels), pa.int32())
    return pa.table([labels, pa.nulls(len(labels), pa.string()), nothing, nothing], schema=ANSWERS)
