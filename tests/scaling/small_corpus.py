"""Token streams of two domains, one easy and one that repeats less, as datasets: what a sweep reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from l3_platform.scaling.proxy import Corpus
from l3_platform.settings import Settings

VOCAB, BOS, EOS = 512, 256, 257
SETTINGS = Settings.model_validate(
    {
        "scaling": {"aspect": 16, "seq_len": 32, "batch_tokens": 256, "min_tokens": 1},
        "model": {"head_dim": 16},
        "mixture": {"layers": 1, "budget": 1e9, "held_out_tokens": 2048},
    }
)


def corpus(folder: Path) -> Corpus:
    """Domain `code` repeats eight tokens; `math` counts modulo 97 from a random start and draws two words at random in between."""
    random = np.random.default_rng(0)
    files: dict[str, dict[str, tuple[str, ...]]] = {"train": {}, "held_out": {}}
    for split in files:
        easy = [[BOS, *np.tile(np.arange(8), 20).tolist(), EOS] for _ in range(60)]
        hard = [[BOS, *random.integers(100, 250, 160).tolist(), EOS] for _ in range(60)]
        for domain, documents in (("code", easy), ("math", hard)):
            path = folder / f"{split}-{domain}.bin"
            path.write_bytes(np.concatenate(documents).astype("<u4").tobytes())
            files[split][domain] = (str(path),)
    return Corpus(files["train"], files["held_out"], BOS, EOS)
