"""Training on one GPU beside named peers: whether our attention kernels agree, tokens a second, MFU, and what fp8 brings.

One call, under six minutes on an H100 or H200, `python -m benchmarks.gpu_training`; `--tiny` runs the script itself on a CPU.
It wants torch, numpy and pydantic, and leaves out in words what needs a peer or torchao that is not installed.

Ours is the step of `l3_platform.train`: fp32 weights under FSDP2, bf16, compiled blocks, attention inside documents of about
1,000 tokens, clipping, fused AdamW. A peer is its model, compiled, in the loop that its users write: fp32 weights, autocast
to bf16, torch's fused AdamW; it attends across documents, as such loops do. Each run has the same tokens.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from l3_platform.model.attention import Flex, Kernel, Sdpa, kernel_for
from l3_platform.model.config import ModelConfig, parameters, presets
from l3_platform.model.flops import flops_a_token
from l3_platform.parallel import Mesh
from l3_platform.parallel.parallel_model import build
from l3_platform.parallel.parallelize import local
from l3_platform.train.optimizer import AdamW, clip_gradients
from l3_platform.train.ranks import ranks

PEAK_FLOPS = 989e12  # of an H100 and an H200, dense bf16; fp8 is measured by it too
BOS, DOCUMENT = 0, 1000  # tokens of a document, on average
TOLERANCE = 0.02  # of the largest entry: a few roundings of bf16

LLAMA_1B = ModelConfig(vocab_size=128_256, d_model=2048, layers=16, heads=32, kv_heads=8, ffn=8192, tied=True)  # Llama 3.2
TOY = ModelConfig(vocab_size=512, d_model=64, layers=2, heads=4, kv_heads=2, ffn=128)

Step = Callable[[Tensor], float]


@dataclass(frozen=True)
class Shape:
    name: str
    config: ModelConfig
    rows: int
    seq_len: int


@dataclass(frozen=True)
class Setup:
    device: torch.device
    compiled: bool
    warm_up: int
    steps: int


class LeftOut(Exception):
    """A run that cannot be, and why."""


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="of the 8B shape's 32")
    parser.add_argument("--rows", type=int, default=1, help="sequences of 8,192 tokens a step")
    parser.add_argument("--steps", type=int, default=8, help="that are timed, after 3 others")
    parser.add_argument("--seconds", type=float, default=300.0, help="after which no further run is started")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, not compiled, on a CPU")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    if options.tiny:
        shapes, setup = [Shape("toy", TOY, 2, 160)], Setup(torch.device("cpu"), compiled=False, warm_up=1, steps=2)
    else:
        if not torch.cuda.is_available():
            raise SystemExit("there is no GPU here; --tiny tries the script on a CPU")
        shapes = [
            Shape(f"8B, {options.layers} layers", replace(presets["8b"], layers=options.layers), options.rows, 8192),
            Shape("1B", LLAMA_1B, options.rows, 8192),
        ]
        setup = Setup(torch.device("cuda", 0), compiled=True, warm_up=3, steps=options.steps)
    hardware = torch.cuda.get_device_name() if setup.device.type == "cuda" else "a CPU, at toy sizes: its pace means nothing"
    print(f"{hardware}; torch {torch.__version__}\n", flush=True)
    failed = not agreement(setup.device)
    paces: dict[tuple[str, str], float] = {}
    print("\nshape            who                              tokens/s     MFU   peak GB", flush=True)
    with ranks(needs_group=True):
        for who, made in RUNS.items():  # what matters most first, should time run out
            for shape in shapes:
                if time.monotonic() - began > options.seconds:
                    print(f"{shape.name:16} {who:30} left out: the {options.seconds:.0f} s are over", flush=True)
                    continue
                pace, said = _measured(who, made, shape, setup)
                failed |= pace is None and said.startswith("failed")
                paces |= {} if pace is None else {(shape.name, who): pace}
                print(f"{shape.name:16} {who:30} {said}", flush=True)
    _show_ratios(shapes, paces, hardware)
    print(f"\n{time.monotonic() - began:.0f} s in all")
    return int(failed)


def agreement(device: torch.device) -> bool:
    """Each kernel in bf16 against SDPA in fp32 under a dense mask, forward and backward; on a CPU flex has no backward."""
    gpu = device.type == "cuda"
    kernels: dict[str, Kernel] = {"sdpa": Sdpa(), "flex": Flex(False)}
    if gpu:
        kernels = {name: kernel_for(name, device, 128) for name in ("sdpa", "flex", "varlen")}
    fine = True
    for seq_len in (1000, 4096) if gpu else (100, 300):
        random = torch.Generator(device).manual_seed(seq_len)
        document = (torch.rand(2, seq_len, generator=random, device=device) < 0.01).cumsum(1)
        inputs = [torch.randn(2, heads, seq_len, 128, generator=random, device=device) for heads in (8, 2, 2)]
        expected = _attended(Sdpa(), document, inputs, torch.float32)
        for name, kernel in kernels.items():
            backward = gpu or name != "flex"
            got = _attended(kernel, document, inputs, torch.bfloat16, backward)
            worst = max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(got, expected[: len(got)], strict=True))
            fine &= worst < TOLERANCE
            what = "result and gradients" if backward else "result"
            print(f"{name:6} beside SDPA in fp32, {seq_len} tokens in documents: {what} differ by {worst:.2%} of the largest entry")
    if not fine:
        print(f"FAILED: that is more than {TOLERANCE:.0%}")
    return fine


def _attended(kernel: Kernel, document: Tensor, inputs: list[Tensor], dtype: torch.dtype, backward: bool = True) -> list[Tensor]:
    """What comes out, and with `backward` the gradients of the three inputs behind it."""
    leaves = [x.to(dtype, copy=True).requires_grad_(backward) for x in inputs]
    q, k, v = leaves
    mixed = kernel.attend(q, k, v, kernel.mask(document))
    if not backward:
        return [mixed.float()]
    mixed.float().square().sum().backward()
    gradients = [x.grad for x in leaves if x.grad is not None]
    assert len(gradients) == len(leaves)
    return [mixed.detach().float(), *(gradient.float() for gradient in gradients)]


def _measured(who: str, made: Callable[[Shape, Setup], Step], shape: Shape, setup: Setup) -> tuple[float | None, str]:
    """Tokens a second, and what to say of them. One run that fails does not end the others: the machine is lent."""
    gpu = setup.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        pace = _pace(made(shape, setup), shape, setup)
    except LeftOut as why:
        return None, f"left out: {why}"
    except torch.OutOfMemoryError:
        return None, "left out: its memory does not suffice"
    except Exception as error:
        traceback.print_exc()
        return None, f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        torch._dynamo.reset()
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()
    mfu = pace * flops_a_token(shape.config, shape.seq_len) / PEAK_FLOPS
    peak = torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0
    return pace, f"{pace:10,.0f}  {mfu:6.1%}  {peak:8.1f}"


def _pace(step: Step, shape: Shape, setup: Setup) -> float:
    random = torch.Generator().manual_seed(0)
    size = (setup.warm_up + setup.steps, shape.rows, shape.seq_len + 1)
    tokens = torch.randint(BOS + 1, shape.config.vocab_size, size, generator=random)
    tokens[torch.rand(size, generator=random) < 1 / DOCUMENT] = BOS
    started = 0.0
    for number, batch in enumerate(tokens.to(setup.device)):
        if number == setup.warm_up:
            started = time.perf_counter()
        loss = step(batch)  # which waits for the device
        assert loss == loss, "the loss is not a number"
    return setup.steps * shape.rows * shape.seq_len / (time.perf_counter() - started)


def _ours(attention: Any, precision: Any = "bf16", documents: bool = True) -> Callable[[Shape, Setup], Step]:
    def made(shape: Shape, setup: Setup) -> Step:
        try:
            kernel = kernel_for(attention, setup.device, shape.config.head_dim)
            model = build(
                shape.config, Mesh(), 0, device=setup.device, kernel=kernel, precision=precision, compile_blocks=setup.compiled
            )
        except ValueError as refused:
            raise LeftOut(str(refused)) from refused
        for parameter in model.module.parameters():
            local(parameter.detach()).normal_(0.0, 0.02) if parameter.dim() > 1 else local(parameter.detach()).fill_(1.0)
        optimizer = AdamW(model.module, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1)

        def step(tokens: Tensor) -> float:
            nats = model.forward_backward(tokens[:, :-1], tokens[:, 1:], BOS if documents else None, 0)
            clip_gradients(model.module, 1.0 / tokens[:, 1:].numel(), 1.0)
            optimizer.step(1e-4)
            for parameter in model.module.parameters():
                parameter.grad = None
            return nats.item()

        return step

    return made


def _transformers(shape: Shape, setup: Setup) -> Step:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as missing:
        raise LeftOut("transformers is not installed") from missing
    c = shape.config
    with setup.device:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=c.vocab_size, hidden_size=c.d_model, num_hidden_layers=c.layers, num_attention_heads=c.heads,
                num_key_value_heads=c.kv_heads, intermediate_size=c.ffn, max_position_embeddings=shape.seq_len,
                tie_word_embeddings=c.tied, attn_implementation="sdpa",
            )
        ).float()  # fmt: skip

    def loss_of(tokens: Tensor) -> Tensor:
        return model(input_ids=tokens[:, :-1], labels=tokens[:, :-1], use_cache=False).loss

    return _plain_step(model, loss_of, c, setup)


def _litgpt(shape: Shape, setup: Setup) -> Step:
    try:
        from litgpt import GPT, Config
        from litgpt.utils import chunked_cross_entropy
    except ImportError as missing:
        raise LeftOut("litgpt is not installed") from missing
    c = shape.config
    with setup.device:
        model = GPT(
            Config(
                block_size=shape.seq_len, vocab_size=c.vocab_size, padded_vocab_size=c.vocab_size, n_layer=c.layers,
                n_head=c.heads, n_query_groups=c.kv_heads, n_embd=c.d_model, intermediate_size=c.ffn, rotary_percentage=1.0,
                parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
            )
        )  # fmt: skip
    if c.tied:
        model.lm_head.weight = model.transformer.wte.weight

    def loss_of(tokens: Tensor) -> Tensor:
        return chunked_cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], chunk_size=0)

    return _plain_step(model, loss_of, c, setup)


def _plain_step(model: Any, loss_of: Callable[[Tensor], Tensor], config: ModelConfig, setup: Setup) -> Step:
    held = sum(parameter.numel() for parameter in model.parameters())
    assert held == parameters(config), f"the peer's model has {held:,} parameters, ours {parameters(config):,}"
    if setup.compiled:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(tokens: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setup.device.type, dtype=torch.bfloat16):
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


DOCUMENTS_IN_FLEX, DENSE = "ours, flex", "ours, dense mask"
RUNS: dict[str, Callable[[Shape, Setup], Step]] = {
    DOCUMENTS_IN_FLEX: _ours("flex"),
    "transformers": _transformers,
    "litgpt": _litgpt,
    "ours, flex, fp8": _ours("flex", "fp8"),
    "ours, varlen": _ours("varlen"),
    "ours, across documents": _ours("sdpa", documents=False),
    DENSE: _ours("sdpa"),
}


def _show_ratios(shapes: list[Shape], paces: dict[tuple[str, str], float], hardware: str) -> None:
    """How many times the pace of each other run that of flex is; the other way round for what is quicker by design."""
    print(f"\nRatios of tokens a second on {hardware}")
    for shape in shapes:
        own = paces.get((shape.name, DOCUMENTS_IN_FLEX)) or paces.get((shape.name, DENSE))
        ours = DOCUMENTS_IN_FLEX if (shape.name, DOCUMENTS_IN_FLEX) in paces else DENSE
        for who in RUNS:
            pace = paces.get((shape.name, who))
            if own is None or pace is None or who == ours:
                continue
            above, below, ratio = (who, ours, pace / own) if who.endswith("fp8") else (ours, who, own / pace)
            print(f"{shape.name:16} {above:18} beside {below:24} {ratio:5.2f} x")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
