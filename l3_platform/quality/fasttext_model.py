"""fastText behind two functions: examples to the bytes of a model, a model to probabilities. Same bytes on every run.

fastText 0.9.3 reads and writes local files only, trains repeatably only on one thread of a fresh process
(`fasttext_process`), predicts on lists of texts only, and fails without word n-grams or subwords.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l3_platform.dedup.shingles import words
from l3_platform.quality import fasttext_process

GOOD, OTHER = "__label__referenced", "__label__other"
MAX_WORDS = 1000  # of a text, from its start
_CHARS_READ = 12 * MAX_WORDS


def prepared(text: str) -> str:
    """A text as one line of lower-cased words, the form that the model is trained on and asked about."""
    return " ".join(words(text[:_CHARS_READ])[:MAX_WORDS])


def train(texts: Sequence[str], labels: Sequence[bool], *, dim: int, epochs: int) -> bytes:
    """A supervised model of prepared texts, in fastText's binary format; under 10 MB at 16 dimensions.

    Raises RuntimeError with fastText's own words when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        examples, model = Path(folder, "examples.txt"), Path(folder, "model.bin")
        lines = [f"{GOOD if label else OTHER} {text}\n" for text, label in zip(texts, labels, strict=True)]
        examples.write_text("".join(lines), encoding="utf-8")
        arguments = {
            "model": str(model),
            "input": str(examples),
            "dim": dim,
            "epoch": epochs,
            "lr": 0.5,
            "wordNgrams": 2,
            "bucket": 50_000,
            "minCount": 1 + len(texts) // 1000,  # bounds the vocabulary, and so the file
            "seed": 1,
        }
        command = [sys.executable, "-I", fasttext_process.__file__, json.dumps(arguments)]
        # glibc then takes the matrix from the kernel, as zeros, and never from memory that was freed before.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"fastText could not train on {len(texts):,} texts: {done.stderr.strip()[-500:]}")
        return model.read_bytes()


def load(model: bytes) -> Any:
    """Raises ValueError where the bytes are no fastText model."""
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.bin")
        path.write_bytes(model)
        return fasttext.load_model(str(path))


def probabilities(model: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """float32 [texts]: probability of GOOD for prepared texts. Raises ValueError for a model with other labels."""
    if GOOD not in model.get_labels():
        raise ValueError(f"the quality model has labels {model.get_labels()[:5]}; it needs {GOOD}")
    scores = np.zeros(len(texts), np.float32)
    if texts:
        found, weights = model.predict(list(texts), k=-1)
        for row, (labels, values) in enumerate(zip(found, weights, strict=True)):
            scores[row] = dict(zip(labels, values, strict=True)).get(GOOD, 0.0)
    return np.clip(scores, 0.0, 1.0)  # fastText's softmax tables overshoot 1 by rounding
