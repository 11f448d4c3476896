"""Labels of a CSV file with a header: `url,label` or `doc_id,label`; a label is 1 or 0."""

from __future__ import annotations

import csv
import functools
import io
from dataclasses import dataclass

import pyarrow as pa

from l3_platform.quality.annotators import LabelsError, free_answers
from l3_platform.store import StoreError, files


@dataclass(frozen=True)
class FileLabels:
    """An annotator that looks its answers up. `setting` is named in errors."""

    path: str
    setting: str = "quality.labels"
    simulated: bool = False
    free: bool = True

    @property
    def name(self) -> str:
        return f"file: {self.path.rsplit('/', 1)[-1]}"

    def label(self, documents: pa.Table) -> pa.Table:
        """Null for a document that the file does not name. Raises LabelsError."""
        key, labels = read_labels(self.path, self.setting)
        return free_answers(pa.array([labels.get(str(item)) for item in documents[key].to_pylist()], pa.bool_()))


@functools.lru_cache(maxsize=3)
def read_labels(path: str, setting: str) -> tuple[str, dict[str, bool]]:
    """The column that identifies a document, and its labels."""
    try:
        content = files.read(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise LabelsError(f"{setting}: there is no file {path}; give the path of one, or leave it out") from None
    except (StoreError, OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"{setting}: {path} cannot be read: {error}") from None
    rows = csv.DictReader(io.StringIO(content, newline=""))
    columns = set(rows.fieldnames or ())
    key = next((name for name in ("doc_id", "url") if name in columns), None)
    if key is None or "label" not in columns:
        raise LabelsError(f"{setting}: {path} has columns {sorted(columns)}; it needs `url` or `doc_id`, and `label`")
    values = {"1": True, "0": False, "true": True, "false": False}
    labels: dict[str, bool] = {}
    for row in rows:
        value = values.get((row["label"] or "").strip().lower())
        if value is None:
            raise LabelsError(f"{setting}: {path}, line {rows.line_num}: label {row['label']!r} is neither 1 nor 0")
        labels[(row[key] or "").strip()] = value
    return key, labels
