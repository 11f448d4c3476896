"""Training speed beside named peers: the same shape, tokens, optimizer, clipping and threads; fp32 on CPU, a process each.

Ours is the whole loop, `l3_platform.train`, in the environment that its launcher gives it: data order, ledger, learning rate,
metrics. A peer is its model in the plain loop that its users write, with torch's fused AdamW, fed from memory. Each is run
as it is and with torch.compile (ours: train.compile). Rounds alternate, and the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import ratios
from l3_platform.launch.places import rank_environment
from l3_platform.model import ModelConfig
from l3_platform.model.config import parameters

SHAPES = {
    "small": (ModelConfig(vocab_size=4096, d_model=256, layers=6, heads=8, kv_heads=4, ffn=704), 8, 256),
    "larger": (ModelConfig(vocab_size=16_384, d_model=512, layers=8, heads=8, kv_heads=4, ffn=1408), 4, 512),
}
WARM_UP, BARS = 5, {"transformers": 1.2, "litgpt": 1.0}
COMPILED = ", compiled"


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--one", nargs=2, metavar=("WHO", "SHAPE"), help="print the tokens a second of one")
    options = parser.parse_args(arguments)
    if options.one:
        who, shape = options.one
        name, comma, _ = who.partition(",")
        print(json.dumps(RUNNERS[name](*SHAPES[shape], options.steps, options.threads, compiled=bool(comma))))
        return
    for shape in options.shapes:
        config, rows, seq_len = SHAPES[shape]
        best = dict.fromkeys([name + way for way in ("", COMPILED) for name in RUNNERS], 0.0)
        for _ in range(options.rounds):
            for who in best:
                best[who] = max(best[who], _alone(who, shape, options))
        title = (
            f"Training, {parameters(config):,} parameters, {rows} sequences of {seq_len} tokens, {options.threads} threads, fp32"
        )
        table = Table("who", "tokens/s", "ours is", "ours, compiled, is", title=title)
        for who, pace in best.items():
            table.add_row(who, f"{pace:,.0f}", *(f"{best[ours] / pace:.2f} x" for ours in ("l3", f"l3{COMPILED}")))
            name, way, _ = who.partition(COMPILED)
            if name in BARS:
                ratios.note(f"training, {shape} model, tokens a second: {who}", best["l3" + way] / pace, bar=BARS[name])
        Console().print(table)


def _alone(who: str, shape: str, options: argparse.Namespace) -> float:
    command = [sys.executable, "-m", "benchmarks.training", "--one", who, shape]
    command += ["--steps", str(options.steps), "--threads", str(options.threads)]
    ours = rank_environment(options.threads) if who.startswith("l3") else {}  # as its launcher starts it
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ours)
    if done.returncode:
        raise SystemExit(f"{who}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _l3(config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int, *, compiled: bool) -> float:
    from l3_platform.settings import Stage
    from l3_platform.train import TrainJob
    from l3_platform.train.loop import train

    batch = rows * seq_len
    seen: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "tokens.bin"
        np.random.default_rng(0).integers(0, config.vocab_size, 4 * steps * batch).astype("<u4").tofile(stream)
        job = TrainJob(
            folder=f"{folder}/run", output=f"{folder}/model", model=config, data={"web": (str(stream),)}, shares={"web": 1.0},
            bos_id=0, eos_id=1, total_tokens=(WARM_UP + steps) * batch, ramp=(Stage(batch_tokens=batch, seq_len=seq_len),),
            learning_rate=1e-4, threads=threads, document_mask=False, compile=compiled,
        )  # fmt: skip
        train(job, seen.append)
    return steps * batch / sum(row["seconds"] for row in seen[WARM_UP:])


def _transformers(config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int, *, compiled: bool) -> float:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.d_model, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, intermediate_size=config.ffn,
            max_position_embeddings=seq_len, tie_word_embeddings=False, attn_implementation="sdpa",
        )
    )  # fmt: skip
    if compiled:
        model.compile()

    def loss_of(tokens: Any) -> Any:
        return model(input_ids=tokens[:, :-1], labels=tokens[:, :-1], use_cache=False).loss

    return _plain_loop(model, loss_of, config, rows, seq_len, steps, threads)


def _litgpt(config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int, *, compiled: bool) -> float:
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    model = GPT(
        Config(
            block_size=seq_len, vocab_size=config.vocab_size, padded_vocab_size=config.vocab_size, n_layer=config.layers,
            n_head=config.heads, n_query_groups=config.kv_heads, n_embd=config.d_model, intermediate_size=config.ffn,
            rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
        )
    )  # fmt: skip
    if compiled:
        model.compile()

    def loss_of(tokens: Any) -> Any:
        return chunked_cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], chunk_size=0)

    return _plain_loop(model, loss_of, config, rows, seq_len, steps, threads)


def _plain_loop(
    model: Any, loss_of: Callable[[Any], Any], config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int
) -> float:
    import torch

    torch.set_num_threads(threads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    data = torch.from_numpy(np.random.default_rng(0).integers(0, config.vocab_size, (WARM_UP + steps, rows, seq_len + 1)))
    started = 0.0
    for step, tokens in enumerate(data):
        if step == WARM_UP:
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
    return steps * rows * seq_len / (time.perf_counter() - started)


RUNNERS = {"l3": _l3, "transformers": _transformers, "litgpt": _litgpt}

if __name__ == "__main__":
    main(sys.argv[1:])
