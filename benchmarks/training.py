"""Training speed beside named peers: the same shape, tokens, optimizer, clipping and threads; fp32 on CPU, a process each.

Ours is the whole loop, `l3_platform.train`, in the environment that its launcher gives it: data order, ledger, learning rate,
metrics. A peer is its model in the plain loop that its users write, with torch's fused AdamW, fed from memory. Each is run
as it is and with torch.compile (ours: train.compile). All are in memory at once and take turns, a step each, while the others
wait: a shared machine's pace differs by a quarter from minute to minute, but hardly from one step to the next.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
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
WAYS = {"as it comes": "", "compiled": ", compiled"}
TOOK = "seconds: "


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", nargs=2, metavar=("WHO", "SHAPE"), help="a step for each line of stdin")
    options = parser.parse_args(arguments)
    if options.one:
        who, shape = options.one
        name, comma, _ = who.partition(",")
        RUNNERS[name](*SHAPES[shape], WARM_UP + options.steps, options.threads, _Turns(), compiled=bool(comma))
        return
    for shape in options.shapes:
        for way in options.ways:
            _compare(shape, way, options)


def _compare(shape: str, way: str, options: argparse.Namespace) -> None:
    config, rows, seq_len = SHAPES[shape]
    seconds = _in_turns([name + WAYS[way] for name in RUNNERS], shape, options)
    ours = seconds["l3" + WAYS[way]]
    table = Table(
        *("who", "tokens/s", "best step", "ours is", "by its best step", "by the middle of pairs"),
        title=f"Training {way}, {parameters(config):,} parameters, {rows} × {seq_len} tokens, {options.threads} threads, "
        f"fp32, {options.steps} steps in turns",
    )
    for who, taken in seconds.items():
        pairs = statistics.median(theirs / mine for theirs, mine in zip(taken, ours, strict=True))
        ratio = sum(taken) / sum(ours)
        cells = (f"{rows * seq_len * len(taken) / sum(taken):,.0f}", f"{min(taken):.3f} s")
        table.add_row(who, *cells, *(f"{times:.2f} x" for times in (ratio, min(taken) / min(ours), pairs)))
        if (name := who.partition(",")[0]) in BARS:
            ratios.note(f"training, {shape} model, tokens a second: {who}", ratio, bar=BARS[name])
    Console(width=140).print(table)


def _in_turns(whos: Sequence[str], shape: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each step of each, without those of the warm-up."""
    seconds: dict[str, list[float]] = {who: [] for who in whos}
    with ExitStack() as stack:
        running = {}
        for who in whos:
            command = [sys.executable, "-m", "benchmarks.training", "--one", who, shape]
            command += ["--steps", str(options.steps), "--threads", str(options.threads)]
            ours = rank_environment(options.threads) if who.startswith("l3") else {}  # as its launcher starts it
            error = stack.enter_context(tempfile.TemporaryFile("w+"))
            child = subprocess.Popen(
                command, text=True, env=os.environ | ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=error
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
            running[who] = (child, error)
        for step in range(WARM_UP + options.steps):
            first = step % len(whos)  # none always follows the same other
            for who in (*whos[first:], *whos[:first]):
                child, error = running[who]
                assert child.stdin and child.stdout
                try:
                    print(file=child.stdin, flush=True)
                    line = next(line for line in child.stdout if line.startswith(TOOK))
                except (StopIteration, BrokenPipeError):
                    error.seek(0)
                    raise SystemExit(f"{who}: {error.read()[-2000:]}") from None
                if step >= WARM_UP:
                    seconds[who].append(float(line.removeprefix(TOOK)))
        for child, _ in running.values():
            child.communicate()  # the end of its turns
    return seconds


class _Turns:
    """A step begins when the parent says so, and tells it how long it took; what comes after the last waits, too."""

    def wait(self) -> None:
        sys.stdin.readline()
        self._began = time.perf_counter()

    def over(self) -> None:
        print(f"{TOOK}{time.perf_counter() - self._began}", flush=True)


def _l3(config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int, turns: _Turns, *, compiled: bool) -> None:
    from l3_platform.settings import Stage
    from l3_platform.train import TrainJob
    from l3_platform.train.loop import train

    batch = rows * seq_len

    def after_step(row: dict[str, float]) -> None:
        turns.over()
        turns.wait()

    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "tokens.bin"
        np.random.default_rng(0).integers(0, config.vocab_size, 4 * steps * batch).astype("<u4").tofile(stream)
        job = TrainJob(
            folder=f"{folder}/run", output=f"{folder}/model", model=config, data={"web": (str(stream),)}, shares={"web": 1.0},
            bos_id=0, eos_id=1, total_tokens=steps * batch, ramp=(Stage(batch_tokens=batch, seq_len=seq_len),),
            learning_rate=1e-4, threads=threads, document_mask=False, compile=compiled,
        )  # fmt: skip
        turns.wait()
        train(job, after_step)


def _transformers(config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int, turns: _Turns, *, compiled: bool) -> None:
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

    _plain_loop(model, loss_of, config, rows, seq_len, steps, threads, turns)


def _litgpt(config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int, turns: _Turns, *, compiled: bool) -> None:
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

    _plain_loop(model, loss_of, config, rows, seq_len, steps, threads, turns)


def _plain_loop(
    model: Any, loss_of: Callable[[Any], Any], config: ModelConfig, rows: int, seq_len: int, steps: int, threads: int, turns: _Turns
) -> None:
    import torch

    torch.set_num_threads(threads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    data = torch.from_numpy(np.random.default_rng(0).integers(0, config.vocab_size, (steps, rows, seq_len + 1)))
    for tokens in data:
        turns.wait()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        turns.over()


RUNNERS = {"l3": _l3, "transformers": _transformers, "litgpt": _litgpt}

if __name__ == "__main__":
    main(sys.argv[1:])
