"""Flex with a backward pass on a CPU: torch refuses it there, and has it, of plain tensor operations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from l3_platform.model.attention import Flex


def traced_flex() -> Flex:
    """Through dynamo and autograd's tracer, as compiled flex is, but not through inductor."""
    flex = Flex(False)
    flex._flex = torch.compile(flex._flex, backend="aot_eager")
    return flex


@contextmanager
def refusal_lifted() -> Iterator[None]:
    from torch.nn.attention import flex_attention as module

    options = module._apply_kernel_options

    def with_statistics(*arguments: Any) -> Any:
        return options(*arguments) | {"OUTPUT_LOGSUMEXP": True}

    with mock.patch.object(module, "_validate_device"), mock.patch.object(module, "_apply_kernel_options", with_statistics):
        yield
