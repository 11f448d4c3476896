"""fastText behind two functions: labelled lines to the bytes of a model, and those to a model. Same bytes on every run.

fastText 0.9.3 reads and writes local files only, trains repeatably only on one thread of a fresh process
(`fasttext_process`), predicts on lists of texts only, and fails without word n-grams or subwords.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from l3_platform.curate import fasttext_process

LABEL = "__label__"


def train(examples: Iterable[tuple[str, str]], arguments: dict[str, Any]) -> bytes:
    """A supervised model, in fastText's binary format, of (label that begins with LABEL, text on one line) pairs.

    `arguments` are those of `fasttext.train_supervised`. Raises RuntimeError with fastText's own words when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines, model = Path(folder, "examples.txt"), Path(folder, "model.bin")
        with lines.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(f"{label} {text}\n" for label, text in examples)
        whole = {**arguments, "model": str(model), "input": str(lines), "seed": 1}
        command = [sys.executable, "-I", fasttext_process.__file__, json.dumps(whole)]
        # glibc then takes the matrix from the kernel, as zeros, and never from memory that was freed before.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            size = lines.stat().st_size / 1e6
            raise RuntimeError(f"fastText could not train on {size:,.1f} MB of examples: {done.stderr.strip()[-500:]}")
        return model.read_bytes()


def load(model: bytes) -> Any:
    """Raises ValueError where the bytes are no fastText model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.bin")
        path.write_bytes(model)
        return load_file(str(path))


def load_file(path: str) -> Any:
    """Raises ValueError, naming the file, where it is no fastText model or does not exist."""
    import fasttext

    return fasttext.load_model(path)
