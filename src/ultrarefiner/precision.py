"""Which number format a device computes fastest in, without losing what matters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ultrarefiner.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: no such device on this machine.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there.get(name.partition(":")[0], False):
        available = ", ".join(kind for kind in there if there[kind])
        raise ConfigError(f"device {name!r}", expected=f"auto or one of {available}")
    return torch.device(name)


def bf16_is_fast(device: torch.device) -> bool:
    """Tell whether matrix products in bfloat16 have hardware of their own on this device."""
    if device.type == "cpu":
        return cpu_has_amx() or cpu_has_avx512_bf16()
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return False


def cpu_has_amx() -> bool:
    """Tell whether the CPU has Intel's matrix tiles (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


def cpu_has_avx512_bf16() -> bool:
    """Tell whether the CPU has bfloat16 dot products (AVX512_BF16)."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, *, enabled: bool | None = None) -> AbstractContextManager[None]:
    """Return a bfloat16 autocast context, on by default where :func:`bf16_is_fast`."""
    enabled = bf16_is_fast(device) if enabled is None else enabled
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=enabled
    )
    return context


class DepthwiseInFloat32(TorchFunctionMode):
    """Inside, a CPU under autocast computes depthwise convolutions in float32.

    Only there: their gradients in bfloat16 take 5 to 20 times as long where the stride is 2 or the
    kernel 5 x 5 (oneDNN has no fast kernel), which is half the time of a training step of an
    EfficientNet. What comes out is in the format of what went in. ``benchmarks/phase1.py``.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, in float32 if it is such a convolution."""
        kwargs = kwargs or {}
        if func is not torch.conv2d or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        return _convolve(*args, **kwargs)


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve as :func:`torch.conv2d` does; on a CPU and depthwise, in float32."""
    if x.device.type != "cpu" or not 1 < groups == x.shape[1]:
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    with torch.autocast("cpu", enabled=False):
        out = torch.conv2d(
            x.float(),
            weight.float(),
            None if bias is None else bias.float(),
            stride,
            padding,
            dilation,
            groups,
        )
    return out.to(x.dtype)
