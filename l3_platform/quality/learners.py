"""What learns a question from labelled texts: fastText or a transformer encoder, behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from l3_platform.quality.questions import Question
from l3_platform.settings import Settings


class LearnerError(ValueError):
    """A model that cannot be trained or opened; the message is meant for a person."""


class Model(Protocol):
    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [texts]: the chance that each prepared text meets the question."""
        ...


class Learner(Protocol):
    """Trains and opens models. Picklable; gives the same bytes on every run."""

    @property
    def name(self) -> str: ...

    def prepared(self, text: str) -> str:
        """What of a text the model reads; "" where there is nothing that it could."""
        ...

    def train(self, texts: Sequence[str], labels: Sequence[bool]) -> dict[str, bytes]:
        """The files of a model of prepared texts. Raises LearnerError."""
        ...

    def given(self, path: str) -> dict[str, bytes]:
        """The files of a model that was trained elsewhere. Raises FileNotFoundError."""
        ...

    def load(self, content: Mapping[str, bytes]) -> Model:
        """Raises LearnerError where the files are no model of the question."""
        ...


def learner(question: Question, kind: str, settings: Settings) -> Learner:
    """Of kind `fasttext` or `encoder`."""
    from l3_platform.quality.encoder import Encoder
    from l3_platform.quality.fasttext_model import FastText

    own = question.settings(settings)
    return Encoder(question, settings.encoder) if kind == "encoder" else FastText(question, own.dim, own.epochs)
