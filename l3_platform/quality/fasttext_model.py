"""fastText as a learner: how a text is prepared, how the model is trained and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l3_platform.curate import fasttext_training
from l3_platform.curate.fasttext_training import LABEL
from l3_platform.dedup.shingles import first_words
from l3_platform.quality.learners import LearnerError
from l3_platform.quality.questions import Question
from l3_platform.store import files

MAX_WORDS = 1000  # of a text, from its start
_CHARS_READ = 12 * MAX_WORDS
LEARNING_RATES = (0.5, 0.25, 0.1)  # the next is tried where fastText runs into NaN


@dataclass(frozen=True)
class FastText:
    """Labels `__label__<positive>` and `__label__other`; under 10 MB at 16 dimensions."""

    question: Question
    dim: int
    epochs: int

    @property
    def name(self) -> str:
        return f"fastText, {self.dim} dimensions"

    @property
    def file(self) -> str:
        return f"{self.question.name}.bin"

    def prepared(self, text: str) -> str:
        """One line of lower-cased words, the form that the model is trained on and asked about."""
        return first_words(text[:_CHARS_READ], MAX_WORDS)

    def train(self, texts: Sequence[str], labels: Sequence[bool]) -> dict[str, bytes]:
        label_of = {True: LABEL + self.question.positive, False: LABEL + "other"}
        arguments = {
            "dim": self.dim,
            "epoch": self.epochs,
            "wordNgrams": 2,
            "bucket": 50_000,
            "minCount": 1 + len(texts) // 1000,  # bounds the vocabulary, and so the file
        }
        failure = ""
        for rate in LEARNING_RATES:
            examples = ((label_of[label], text) for label, text in zip(labels, texts, strict=True))
            try:
                return {self.file: fasttext_training.train(examples, {**arguments, "lr": rate})}
            except RuntimeError as error:
                failure = str(error).strip().rsplit("\n", 1)[-1]
                if "NaN" not in failure:
                    break
        raise LearnerError(
            f"{self.question.name}_classifier: fastText could not learn from {len(texts):,} texts ({failure}); give it more "
            f"documents ({self.question.name}.sample_documents), or change {self.question.name}.dim or {self.question.name}.epochs"
        )

    def given(self, path: str) -> dict[str, bytes]:
        return {self.file: files.read(path)}

    def load(self, content: Mapping[str, bytes]) -> FastTextModel:
        try:
            model = fasttext_training.load(content[self.file])
        except ValueError as error:
            raise LearnerError(f"{self.question.name}.model: not a fastText model ({error})") from None
        wanted = LABEL + self.question.positive
        if wanted not in model.get_labels():
            raise LearnerError(f"the {self.question.name} model has labels {model.get_labels()[:5]}; it needs {wanted}")
        return FastTextModel(model, wanted)


@dataclass(frozen=True)
class FastTextModel:
    model: Any
    label: str

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        scores = np.zeros(len(texts), np.float32)
        if texts:
            found, weights = self.model.predict(list(texts), k=-1)
            for row, (labels, values) in enumerate(zip(found, weights, strict=True)):
                scores[row] = dict(zip(labels, values, strict=True)).get(self.label, 0.0)
        return np.clip(scores, 0.0, 1.0)  # fastText's softmax tables overshoot 1 by rounding
