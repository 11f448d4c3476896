"""What a CPU does faster than torch does by itself, with the same results to rounding: products by oneDNN, cross-entropy in place.

On x86 torch multiplies fp32 matrices by MKL and keeps oneDNN, which it carries too, for bf16 and for compiled inference.
docs/results.md has what each of the two takes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Multiplications from which oneDNN's longer call pays.
_WORTH_IT = 1 << 24
PLAIN = (Tensor, nn.Parameter)  # what is dealt with here: a DTensor has its own products


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., inputs] times weight [outputs, inputs], transposed: `F.linear` without a bias."""
    if _is_ours(x, weight) and x.numel() * weight.shape[0] >= _WORTH_IT and torch.backends.mkldnn.is_available():
        return _Linear.apply(x, weight)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight)


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood of `targets` [tokens], nats, where a target of -100 is not predicted.

    On a CPU the fp32 `logits` [tokens, vocab] are overwritten: at a vocabulary of many thousand words two more tensors of
    their size, as `F.cross_entropy` makes, are the largest of a small model's step.
    """
    if _is_ours(logits) and not torch.compiler.is_compiling():
        return _CrossEntropy.apply(logits, targets)  # pyright: ignore[reportReturnType]
    return F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")


def _is_ours(*tensors: Tensor) -> bool:
    """Whether these are plain fp32 matrices on a CPU."""
    return all(type(tensor) in PLAIN and tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def _times(x: Tensor, weight: Tensor) -> Tensor:
    return _opaque_times(x, weight) if torch.compiler.is_compiling() else _onednn(x, weight)


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@torch.library.custom_op("l3::times", mutates_args=())
def _opaque_times(x: Tensor, weight: Tensor) -> Tensor:
    """The same to torch.compile, which else takes oneDNN's product for one of inference."""
    return _onednn(x, weight)


@_opaque_times.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _times(x, weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grad_outputs
        x, weight = ctx.saved_tensors
        rows, grad_rows = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        of_weight = None
        if ctx.needs_input_grad[1]:
            # MKL is the faster one here, but for a weight as tall as that of an output head.
            tall = weight.shape[0] > 4 * weight.shape[1]
            of_weight = _times(rows.t(), grad_rows.t()).t() if tall else grad_rows.t() @ rows
        return _times(grad, weight.t()) if ctx.needs_input_grad[0] else None, of_weight


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        chances = logits.detach()
        torch.ops.aten._log_softmax.out(chances, 1, False, out=chances)
        predicted = targets >= 0
        picked = targets.clamp(min=0)[:, None]
        ctx.save_for_backward(chances, picked, predicted)
        return -(chances.gather(1, picked)[:, 0] * predicted).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        chances, picked, predicted = ctx.saved_tensors  # a second backward pass is refused, since these are written here
        weights = (grad * predicted)[:, None]
        return chances.exp_().mul_(weights).scatter_add_(1, picked, -weights), None
