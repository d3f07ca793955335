"""What PyTorch computes: functions of tensors, with channels second.

Feature maps are `(N, C, H, W)` views of memory with channels last, which
PyTorch's convolutions and batch normalization take as they are.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

HALF = (torch.float16, torch.bfloat16)


def channels_second(x: torch.Tensor) -> torch.Tensor:
    """Returns a view `(N, C, H, W)` of maps `(N, H, W, C)`."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Returns a view `(N, H, W, C)` of maps `(N, C, H, W)`."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def convolve(
    x: torch.Tensor,
    kernel: torch.Tensor,
    strides: Sequence[int],
    padding: Sequence[int] | None,
    dilation: Sequence[int],
    groups: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolves maps `(N, C, H, W)` with Keras's kernel `(H, W, C, D)`.

    The padding is that of rows and of columns, or `None` for Keras's `"same"`.
    """
    kernel = kernel.permute(3, 2, 0, 1)
    layout = torch.channels_last
    if padding is None:
        x, padding = pad_same(x, kernel.shape[2:], strides, dilation)
    # Some CPUs sum a bias's gradient in float16; added apart, as Keras does, it
    # is summed in float32.
    apart = bias is not None and x.is_cpu and x.dtype == torch.float16
    outputs = functional.conv2d(
        x.contiguous(memory_format=layout),
        kernel.to(x.dtype, memory_format=layout),
        None if apart else bias,
        tuple(strides),
        tuple(padding),
        tuple(dilation),
        groups,
    )
    if bias is not None and apart:
        outputs = outputs + bias[:, None, None]
    return outputs


def pad_same(
    x: torch.Tensor,
    size: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int] = (1, 1),
    mode: str = "constant",
) -> tuple[torch.Tensor, Sequence[int]]:
    """Pads maps as Keras's `"same"` does, or leaves it to the operation.

    Returns:
        The maps, and the padding that the operation has to add.
    """
    pads = []
    for length, k, s, d in zip(x.shape[2:], size, strides, dilation):
        reach = (k - 1) * d + 1
        total = max((-(-length // s) - 1) * s + reach - length, 0)
        pads.append((total // 2, total - total // 2))
    if all(before == after for before, after in pads):
        return x, [before for before, _ in pads]
    (top, bottom), (left, right) = pads
    return functional.pad(x, (left, right, top, bottom), mode=mode), (0, 0)


def normalize(
    x: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    scale: torch.Tensor | None,
    offset: torch.Tensor | None,
    epsilon: float,
) -> torch.Tensor:
    """Normalizes a batch `(N, C, ...)` of at least two values a channel.

    Args:
        x: batch.
        mean: zeros `(C,)`, which become the batch's mean; float32 if `x` has
            half precision.
        variance: zeros `(C,)`, which become the batch's unbiased variance.
        scale: tensor `(C,)` or `None`.
        offset: tensor `(C,)` or `None`.
        epsilon: float.
    """
    x, dtype = _widened(x)
    return functional.batch_norm(
        x,
        mean,
        variance,
        _in(scale, dtype),
        _in(offset, dtype),
        training=True,
        # Nothing is kept of the zeros.
        momentum=1.0,
        eps=epsilon,
    )


def normalize_by(
    x: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    scale: torch.Tensor | None,
    offset: torch.Tensor | None,
    epsilon: float,
    will_move: bool = False,
) -> torch.Tensor:
    """Normalizes a batch `(N, C, ...)` by given statistics.

    Args:
        x: batch.
        mean: tensor `(C,)`.
        variance: tensor `(C,)`.
        scale: tensor `(C,)` or `None`.
        offset: tensor `(C,)` or `None`.
        epsilon: float.
        will_move: bool. Whether the statistics may be assigned to before the
            gradients are computed, which need them.
    """
    x, dtype = _widened(x)
    if will_move and torch.is_grad_enabled():
        mean, variance = mean.clone(), variance.clone()
    return functional.batch_norm(
        x,
        _in(mean, dtype),
        _in(variance, dtype),
        _in(scale, dtype),
        _in(offset, dtype),
        training=False,
        eps=epsilon,
    )


def wide_dtype(x: torch.Tensor) -> torch.dtype:
    """Returns the dtype of a batch's statistics: at least float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _widened(x: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
    """Returns a batch and the dtype of its statistics and weights."""
    dtype = wide_dtype(x)
    return (x if x.dtype in HALF else x.to(dtype)), dtype


def _in(x: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if x is None else x.to(dtype)
