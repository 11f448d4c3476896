"""Training in fp8: the matrix products of blocks through torchao's Float8Linear (Micikevicius et al. 2022).

Inputs, weights and gradients are cast as they enter a product, with one scale a tensor, taken from its largest entry. The
weights, the embedding, the output head and all that lies between products stay as they are, and so do the parameters' names.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

CAPABILITY = (8, 9)  # of CUDA devices with fp8: Ada, Hopper and later


def check_device(device: torch.device) -> None:
    """Raises ValueError, in words, on a device that has no fp8."""
    if device.type != "cuda":
        raise ValueError("train.precision=fp8 needs a GPU that has fp8 (H100, L40 or later); set train.precision=bf16")
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        raise ValueError(
            f"train.precision=fp8: {torch.cuda.get_device_name(device)} has no fp8 (compute capability {found[0]}.{found[1]}, "
            f"it begins with {CAPABILITY[0]}.{CAPABILITY[1]}); set train.precision=bf16"
        )


def convert(blocks: Iterable[nn.Module], emulate: bool = False) -> None:
    """Replaces every linear layer of the blocks, in place; before anything is sharded. `emulate` computes in fp32 what a
    device with fp8 would. Raises ValueError where torchao is missing."""
    try:
        from torchao.float8 import (  # pyright: ignore[reportMissingImports]
            Float8LinearConfig,
            convert_to_float8_training,
        )
    except ImportError as error:
        raise ValueError("train.precision=fp8 needs torchao: pip install 'l3-platform[gpu]'") from error
    for block in blocks:
        convert_to_float8_training(block, config=Float8LinearConfig(emulate=emulate))
