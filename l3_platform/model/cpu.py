"""What a CPU does faster than torch does by itself, with the same results to rounding: products by oneDNN, attention, and what
lies between them, the loss included, in one pass each (`cpu_kernels`).

On x86 torch multiplies fp32 matrices by MKL and keeps oneDNN, which it carries too, for bf16 and for compiled inference.
docs/results.md has what each takes. Tiny tensors are left to torch: there a longer call costs what it saves, and so does numba's
import.
"""

# once_differentiable has no types.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Multiplications from which oneDNN's longer call pays, and numbers from which a kernel of ours does.
_WORTH_IT, _LARGE = 1 << 24, 1 << 12
_ONEDNN = torch.backends.mkldnn.is_available()  # a constant, since torch.compile does not look into the question
PLAIN = (Tensor, nn.Parameter)  # what is dealt with here: a DTensor has its own products


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., inputs] times weight [outputs, inputs], transposed: `F.linear` without a bias."""
    if _ONEDNN and _is_ours(x, weight) and x.numel() * weight.shape[0] >= _WORTH_IT:
        return _Linear.apply(x, weight)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight)


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood of `targets` [tokens], nats, where a target of -100 is not predicted.
    A logit that is NaN or +inf makes it NaN or infinite.

    On a CPU large fp32 `logits` [tokens, vocab] are overwritten by their gradient: at a vocabulary of many thousand words two more
    tensors of their size, as `F.cross_entropy` makes, are the largest of a small model's step.
    """
    if pays(logits, logits):
        return _CrossEntropy.apply(logits.contiguous(), targets)  # pyright: ignore[reportReturnType]
    return F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")


def pays(x: Tensor, other: Tensor) -> bool:
    """Whether our kernels are for a large x and the other tensor that it meets, both plain fp32 on a CPU, outside torch.compile."""
    return not torch.compiler.is_compiling() and x.numel() >= _LARGE and _is_ours(x, other)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x: [..., width], weight: [width]."""
    return _RMSNorm.apply(x.contiguous(), weight, eps)  # pyright: ignore[reportReturnType]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """x: [batch, heads, seq, head_dim], rotation: [2, seq, head_dim / 2]."""
    return _Rotate.apply(x, rotation)  # pyright: ignore[reportReturnType]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up; all of one shape."""
    return _SwiGLU.apply(gate.contiguous(), up.contiguous())  # pyright: ignore[reportReturnType]


def attention_pays(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `attend` is for these heads of whole sequences."""
    if q.numel() < _LARGE or q.shape[2] != k.shape[2]:
        return False
    # A thread has key heads of whole sequences, and twice torch's speed. torch.compile could not look up how many there are.
    busy = torch.compiler.is_compiling() or 2 * k.shape[0] * k.shape[1] >= torch.get_num_threads()
    return busy and _is_ours(q, k, v)


def attend(q: Tensor, k: Tensor, v: Tensor, begins: Tensor | None) -> Tensor:
    """q, result: [batch, heads, seq, head_dim]; k, v: the same of kv_heads. A query sees what stands from `begins` [batch, seq]
    to itself, or without it all up to itself."""
    return _Attend.apply(q, k, v, begins)  # pyright: ignore[reportReturnType]


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
    @once_differentiable
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
        if len(targets) != len(logits) or int(targets.max()) >= logits.shape[1]:
            raise IndexError(f"targets up to {int(targets.max())} for {len(targets)} tokens, of logits {list(logits.shape)}")
        losses, wholes = logits.new_empty(len(logits)), logits.new_empty(len(logits))
        _kernels().cross_entropy(_array(logits), _array(targets), _array(losses), _array(wholes))
        ctx.save_for_backward(logits, targets, wholes)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        logits, targets, wholes = ctx.saved_tensors
        _kernels().cross_entropy_backward(_array(logits), _array(targets), _array(wholes), np.float32(grad_outputs[0].item()))
        torch.autograd.graph.increment_version(logits)  # so that a second backward pass is refused
        return logits.detach(), None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        result, scale = torch.empty_like(x), x.new_empty(x.shape[:-1].numel())
        _kernels().rms_norm(*_rows(x), _copy(weight), np.float32(eps), *_rows(result), _array(scale))
        ctx.save_for_backward(x, weight, scale)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        kernels = _kernels()
        of_x, of_weight = torch.empty_like(x), x.new_empty((kernels.PARTS, x.shape[-1]))
        kernels.rms_norm_backward(*_rows(*grad_outputs, x), _copy(weight), _array(scale), *_rows(of_x), _array(of_weight))
        return of_x, of_weight.sum(0), None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rotation: Tensor) -> Tensor:
        ctx.save_for_backward(rotation)
        return _rotated(x, rotation, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        (rotation,) = ctx.saved_tensors
        return _rotated(grad, rotation, -1.0), None


def _rotated(x: Tensor, rotation: Tensor, direction: float) -> Tensor:
    """[batch, heads, seq, head_dim], whose memory is [batch, seq, heads, head_dim] as that of a product is."""
    by_token = _by_token(x)
    result = torch.empty_like(by_token)
    cos, sin = map(_array, rotation)
    _kernels().rotate(_array(by_token), cos, sin, np.float32(direction), _array(result))
    return result.transpose(1, 2)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        result = torch.empty_like(gate)
        _kernels().swiglu(*_rows(gate, up, result))
        ctx.save_for_backward(gate, up)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        _kernels().swiglu_backward(*_rows(*grad_outputs, gate, up, of_gate, of_up))
        return of_gate, of_up


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, begins: Tensor | None) -> Tensor:
        q, k, v = _by_token(q), _by_token(k), _by_token(v)
        begins = q.new_zeros(q.shape[:2], dtype=torch.int64) if begins is None else begins
        result, wholes = _attend(q, k, v, begins)
        ctx.save_for_backward(q, k, v, begins, result, wholes)
        return result.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        of_q, of_k, of_v = _attend_backward(_by_token(grad), *ctx.saved_tensors)
        return of_q.transpose(1, 2), of_k.transpose(1, 2), of_v.transpose(1, 2), None


# Operations of their own, which torch.compile need not look into and selective checkpointing knows by name.
@torch.library.custom_op("l3::attend", mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """Heads [batch, seq, heads, head_dim], as their product leaves them in memory. Returns what the way back wants too."""
    result, wholes = _empty_for(q), q.new_empty(q.shape[:3])
    _kernels().attend(*map(_array, (q, k, v, begins)), np.float32(q.shape[3] ** -0.5), _array(result), _array(wholes))
    return result, wholes


@torch.library.custom_op("l3::attend_backward", mutates_args=())
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, begins: Tensor, result: Tensor, wholes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_q, of_k, of_v = _empty_for(q), _empty_for(k), _empty_for(v)
    before, after = map(_array, (grad, q, k, v, begins)), map(_array, (result, wholes, of_q, of_k, of_v))
    _kernels().attend_backward(*before, np.float32(q.shape[3] ** -0.5), *after)
    return of_q, of_k, of_v


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_for(q), q.new_empty(q.shape[:3])


@_attend_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, begins: Tensor, result: Tensor, wholes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_for(q), _empty_for(k), _empty_for(v)


def _empty_for(x: Tensor) -> Tensor:
    """Contiguous whatever x is, so that an array over it is no copy."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _by_token(x: Tensor) -> Tensor:
    """[batch, heads, seq, head_dim] as [batch, seq, heads, head_dim], in which order a product leaves them in memory."""
    return x.transpose(1, 2).contiguous()


def _kernels() -> Any:
    """Imported where they are first wanted, and with as many threads as torch has."""
    import numba

    from l3_platform.model import cpu_kernels

    threads, most = torch.get_num_threads(), int(numba.config.NUMBA_NUM_THREADS)  # pyright: ignore
    numba.set_num_threads(min(threads, most))
    if torch.get_num_threads() != threads:  # numba's first start sets OpenMP, which is torch's too, to all cores
        torch.set_num_threads(threads)
    return cpu_kernels


def _rows(*tensors: Tensor) -> list[np.ndarray]:
    """Each as an array [tokens, width]."""
    return [_array(tensor.reshape(-1, tensor.shape[-1])) for tensor in tensors]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _copy(weight: Tensor) -> np.ndarray:
    """Of a sharded parameter: FSDP frees its storage between uses, which an array over it would forbid for ever."""
    return weight.detach().clone().numpy()
