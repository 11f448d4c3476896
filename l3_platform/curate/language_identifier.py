"""A fastText language identifier trained on labelled text, an asset of its own: a better one takes its place by one setting.

Letters tell languages apart, so that is all the model sees: lower case, everything else a space. Each word is a feature, and so
are its n-grams of one to five characters. A tenth of each language's texts is held out of a first training to measure it; the
model that is kept has seen all of them."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.curate import fasttext_training
from l3_platform.curate.fasttext_training import LABEL
from l3_platform.engine import Counts, Output, map_shards
from l3_platform.settings import Languages, Settings, SettingsError
from l3_platform.store import Shard, Writer

MODEL_FILE = "languages.bin"
SCHEMA = pa.schema([("language", pa.string()), ("texts", pa.int32()), ("held_out", pa.int32()), ("f1", pa.float64())])
HELD_OUT = 10  # every tenth text of a language

_CHARS_READ = 4000
_NO_LETTERS = re.compile(r"[\W\d_]+")


def build_language_identifier(*, out: Writer, settings: Settings) -> tuple[list[str], dict[str, Any]]:
    """Train on `languages.labelled`; where there is none, or a model is given, the dataset is empty. Its table has the F1 of each
    language on held-out texts. Raises SettingsError where the texts cannot be read or are too few."""
    languages = settings.languages
    if languages.model or not languages.labelled:
        names = map_shards(_nothing, {"model": None}, out, settings.engine, here=True)
        return names, {"identifier": "a given model" if languages.model else "built-in"}
    names = map_shards(functools.partial(fit, languages=languages), {"model": languages.labelled}, out, settings.engine)
    table = Shard(out.folder, out.partition, "model").read()
    return names, {
        "identifier": "trained",
        "languages": table.num_rows,
        "texts": sum(table["texts"].to_pylist()),
        "macro_f1": round(float(np.mean(table["f1"].to_pylist())), 4),
    }


def _nothing(task: None) -> Output:
    return Output(SCHEMA.empty_table(), Counts())


def fit(path: str, languages: Languages) -> Output:
    """The model over all texts of the file, and for each language the F1 of one that had not seen a tenth of them."""
    texts, codes = labelled(path)
    lines = [letters(text) for text in texts]
    held_out = np.array(_turns(codes)) % HELD_OUT == HELD_OUT - 1
    model = fasttext_training.load(train([lines[i] for i in np.flatnonzero(~held_out)], codes[~held_out], languages))
    answers = predict([lines[i] for i in np.flatnonzero(held_out)], model)
    scores = f1_scores(codes[held_out].tolist(), [answer for answer, _ in answers])
    texts_of, held_out_of = Counter(codes.tolist()), Counter(codes[held_out].tolist())
    table = pa.table(
        [
            pa.array(sorted(texts_of), pa.string()),
            pa.array([texts_of[code] for code in sorted(texts_of)], pa.int32()),
            pa.array([held_out_of[code] for code in sorted(texts_of)], pa.int32()),
            pa.array([scores.get(code) for code in sorted(texts_of)], pa.float64()),
        ],
        schema=SCHEMA,
    )
    return Output(table, Counts.annotated(table.num_rows), files={MODEL_FILE: train(lines, codes, languages)})


def train(lines: Sequence[str], codes: Sequence[str] | npt.NDArray[Any], languages: Languages) -> bytes:
    """A model of `letters(text)` lines. Languages take turns: fastText's learning rate falls as it reads."""
    arguments = {
        "dim": languages.dim,
        "epoch": languages.epochs,
        "lr": 0.8,
        "minn": 1,
        "maxn": 5,
        "bucket": 300_000,
        "loss": "ova",  # 0.964 on 75 languages, where softmax makes 0.953: Bosnian and Croatian need not add up to 1
    }
    order = sorted(range(len(lines)), key=list(zip(_turns(codes), codes, strict=True)).__getitem__)
    return fasttext_training.train(((LABEL + codes[i], lines[i]) for i in order), arguments)


def predict(lines: Sequence[str], model: Any) -> list[tuple[str, float]]:
    """Language and probability of `letters(text)` lines; those without a letter have `und` and 0."""
    if not lines:
        return []
    labels, scores = model.predict(list(lines), k=1)
    return [
        (label[0].removeprefix(LABEL), min(1.0, float(score[0]))) if len(label) and line else ("und", 0.0)
        for label, score, line in zip(labels, scores, lines, strict=True)
    ]


def letters(text: str) -> str:
    """The form that the model is trained on and asked about: the start of a text as one line of lower-cased runs of letters."""
    return _NO_LETTERS.sub(" ", text[:_CHARS_READ].lower()).strip()


def labelled(path: str) -> tuple[list[str], npt.NDArray[Any]]:
    """Texts and languages of a Parquet, CSV or TSV file with the columns `text` and `language`; rows without either are left
    out."""
    try:
        table = _read(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise SettingsError(f"languages.labelled: {path} cannot be read: {error}") from None
    missing = {"text", "language"} - set(table.column_names)
    if missing:
        raise SettingsError(f"languages.labelled: {path} has no column {' and '.join(sorted(missing))}; it needs text and language")
    table = table.select(["text", "language"]).cast(pa.schema([("text", pa.string()), ("language", pa.string())])).drop_null()
    texts, codes = table["text"].to_pylist(), np.array(table["language"].to_pylist(), object)
    few = [code for code, number in sorted(Counter(codes.tolist()).items()) if number < HELD_OUT]
    if few or len(set(codes.tolist())) < 2 or any(not code or code.split() != [code] for code in codes):
        raise SettingsError(
            f"languages.labelled: {path} needs at least two languages of {HELD_OUT} texts each, codes without spaces; "
            f"too few for {', '.join(few[:5]) or 'a choice'}"
        )
    return texts, codes


def _read(path: str) -> pa.Table:
    import pyarrow.parquet as pq
    from pyarrow import csv

    if Path(path).suffix == ".parquet":
        return pq.read_table(path)
    separator = "\t" if Path(path).suffix == ".tsv" else ","
    return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True))


def f1_scores(gold: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Harmonic mean of precision and recall of each language of `gold`."""
    right = Counter(code for code, answer in zip(gold, answers, strict=True) if code == answer)
    wanted, given = Counter(gold), Counter(answers)
    return {code: 2 * right[code] / (wanted[code] + given[code]) for code in sorted(wanted)}


def _turns(codes: Sequence[str] | npt.NDArray[Any]) -> list[int]:
    """How many of the same language came before each text."""
    seen: Counter[str] = Counter()
    turns = []
    for code in codes:
        turns.append(seen[code])
        seen[code] += 1
    return turns
