"""What the classifiers ask of a document: one family, a question each (Llama 3, sections 3.1.1 and 3.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from l3_platform.settings import Classifier, Settings


@dataclass(frozen=True)
class Question:
    """`name` is the section of the settings, and begins the names of the stages `{name}_classifier` and `{name}_scores`."""

    name: str
    positive: str  # what a document is called that meets the requirements
    prose_only: bool = False  # pages of code take no part: the question cannot be asked of them
    decides: bool = False  # what is kept depends on the answer, so that there must be one

    @property
    def requirements(self) -> str:
        """The built-in requirements, in words, that an annotator's model is shown."""
        return Path(__file__).with_name("requirements").joinpath(f"{self.name}.txt").read_text(encoding="utf-8")

    def settings(self, settings: Settings) -> Classifier:
        return getattr(settings, self.name)


QUALITY = Question("quality", "referenced", prose_only=True, decides=True)  # "would this text be referenced by Wikipedia"
CODE = Question("code", "code")
REASONING = Question("reasoning", "reasoning")
