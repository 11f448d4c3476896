"""Labels for "would this text be referenced by Wikipedia" (Llama 3, section 3.1.1), behind one protocol."""

from __future__ import annotations

import csv
import functools
import io
import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from l3_platform.settings import Quality
from l3_platform.store import StoreError, files


class LabelsError(ValueError):
    """Labels that a classifier cannot be trained on; the message is meant for a person."""


class Annotator(Protocol):
    """Labels documents (doc_id, url, text). Picklable: it works in the process that reads the shard."""

    @property
    def name(self) -> str: ...

    @property
    def simulated(self) -> bool:
        """True where the labels stand in for real ones; every report of the classifier must say so."""
        ...

    def label(self, documents: pa.Table) -> pa.Array:
        """Bool [documents]: referenced or not; null where it does not say."""
        ...


def annotator(settings: Quality) -> Annotator:
    return FileLabels(settings.labels) if settings.labels else SimulatedReferences()


_REFERENCE_WORDS = {"wiki", "wikipedia", "encyclopedia", "docs", "doc", "documentation", "reference", "manual"}
_REFERENCE_WORDS |= {"handbook", "textbook", "lectures", "edu", "ac", "gov"}
_URL_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class SimulatedReferences:
    """SIMULATED: a page counts as referenced when its host or first folder names documentation or a work of reference.

    The paper has the links of Wikipedia's articles; a crawl without them has only this rule. Real labels: `FileLabels`.
    """

    name: str = "simulated: documentation and works of reference by URL"
    simulated: bool = True

    def label(self, documents: pa.Table) -> pa.Array:
        return pa.array([_names_a_reference(url or "") for url in documents["url"].to_pylist()], pa.bool_())


def _names_a_reference(url: str) -> bool:
    parts = urlsplit(url)
    folder = parts.path.lstrip("/").partition("/")[0]
    words = _URL_WORD.findall(unquote(f"{parts.netloc} {folder}").lower())
    return not _REFERENCE_WORDS.isdisjoint(words)


@dataclass(frozen=True)
class FileLabels:
    """Labels of a CSV file with a header: `url,label` or `doc_id,label`; a label is 1 or 0. Raises LabelsError."""

    path: str
    simulated: bool = False

    @property
    def name(self) -> str:
        return f"file: {self.path.rsplit('/', 1)[-1]}"

    def label(self, documents: pa.Table) -> pa.Array:
        key, labels = read_labels(self.path)
        return pa.array([labels.get(str(item)) for item in documents[key].to_pylist()], pa.bool_())


@functools.lru_cache(maxsize=2)
def read_labels(path: str) -> tuple[str, dict[str, bool]]:
    """The column that identifies a document, and its labels."""
    try:
        content = files.read(path).decode()
    except FileNotFoundError:
        raise LabelsError(f"quality.labels: there is no file {path}; give the path of one, or leave it out") from None
    except (StoreError, UnicodeDecodeError) as error:
        raise LabelsError(f"quality.labels: {path} cannot be read: {error}") from None
    rows = csv.DictReader(io.StringIO(content))
    columns = set(rows.fieldnames or ())
    key = next((name for name in ("doc_id", "url") if name in columns), None)
    if key is None or "label" not in columns:
        raise LabelsError(f"quality.labels: {path} has columns {sorted(columns)}; it needs `url` or `doc_id`, and `label`")
    values = {"1": True, "0": False, "true": True, "false": False}
    labels: dict[str, bool] = {}
    for line, row in enumerate(rows, start=2):
        value = values.get((row["label"] or "").strip().lower())
        if value is None:
            raise LabelsError(f"quality.labels: {path}, line {line}: label {row['label']!r} is neither 1 nor 0")
        labels[row[key].strip()] = value
    return key, labels
