"""What PyTorch computes: functions of tensors, with channels second.

Feature maps are `(N, C, H, W)` views of memory with channels last, which
PyTorch's convolutions and batch normalization take as they are.
"""

from collections.abc import Iterable, Sequence
from typing import Any

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
    Nothing is copied if the kernel is stored as `store` stores it.
    """
    kernel = kernel.permute(3, 2, 0, 1)
    layout = torch.channels_last
    if kernel.dtype == x.dtype:
        kernel = kernel.contiguous(memory_format=layout)
    else:
        kernel = kernel.to(x.dtype, memory_format=layout)
    if padding is None:
        x, padding = pad_same(x, kernel.shape[2:], strides, dilation)
    # Some CPUs sum a bias's gradient in float16; added apart, as Keras does, it
    # is summed in float32.
    apart = bias is not None and x.is_cpu and x.dtype == torch.float16
    outputs = functional.conv2d(
        x.contiguous(memory_format=layout),
        kernel,
        None if apart else bias,
        strides,
        padding,
        dilation,
        groups,
    )
    if bias is not None and apart:
        outputs = outputs + bias[:, None, None]
    return outputs


def store(variables: Iterable[Any]) -> None:
    """Stores the kernels of convolutions as PyTorch's convolutions read them.

    Their shape stays Keras's `(H, W, C, D)`, and so do their files.

    Args:
        variables: iterable of `keras.Variable`, which may be of other layers,
            and those of an optimizer, whose updates need the same layout.
    """
    for variable in variables:
        if len(variable.shape) == 4:
            tensor = variable.value.data.permute(3, 2, 0, 1)
            tensor = tensor.contiguous(memory_format=torch.channels_last)
            variable.value.data = tensor.permute(2, 3, 1, 0)


def same_padding(
    size: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...] | None:
    """Returns the padding of Keras's `"same"` for maps of any size.

    It is `None` if it depends on the size, or differs from side to side.
    """
    if any(s > 1 and k > 1 for k, s in zip(size, strides)):
        return None
    totals = [(k - 1) * d for k, d in zip(size, dilation)]
    if any(total % 2 for total in totals):
        return None
    return tuple(total // 2 for total in totals)


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
