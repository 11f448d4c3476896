"""Peak memory of the loss at Llama 3's vocabulary, logits whole and in chunks: `python -m benchmarks.loss_memory`.

Each way runs in a process of its own, forward and backward, fp32 on CPU: the whole one needs 13 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

VOCABULARY, WIDTH = 128_256, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--way", choices=("chunks", "whole"), help="measure this one here, and print JSON")
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(measure(chosen.way, chosen.tokens)))
        return
    for way in ("chunks", "whole"):
        command = [sys.executable, "-m", "benchmarks.loss_memory", "--way", way, "--tokens", str(chosen.tokens)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{way:7} {row['bytes'] / 1e9:6.2f} GB above the model, {row['seconds']:.0f} s of processor time, "
            f"loss {row['loss']:.6f}"
        )


def measure(way: str, tokens: int) -> dict[str, float]:
    """Peak resident bytes beyond those of the filled model, processor seconds, and the mean loss in nats."""
    import torch

    from l3_platform.model import Llama, ModelConfig, llama
    from l3_platform.model.init import initialize

    if way == "whole":
        llama.LOGITS_A_CHUNK = tokens * VOCABULARY
    model = Llama(ModelConfig(vocab_size=VOCABULARY, d_model=WIDTH, layers=1, heads=4, kv_heads=2, ffn=704))
    initialize(model, 1)
    stream = torch.randint(0, VOCABULARY, (1, tokens + 1), generator=torch.Generator().manual_seed(2))
    before = resource.getrusage(resource.RUSAGE_SELF)
    loss = model(stream[:, :-1], stream[:, 1:])
    loss.backward()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "bytes": (after.ru_maxrss - before.ru_maxrss) * 1024,
        "seconds": after.ru_utime - before.ru_utime,
        "loss": loss.item() / tokens,
    }


if __name__ == "__main__":
    main()
