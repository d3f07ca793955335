"""What PyTorch computes: functions of tensors, with channels second.

Feature maps are `(N, C, H, W)` views of memory with channels last, which
PyTorch's convolutions and batch normalization take as they are.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

HALF = (torch.float16, torch.bfloat16)


def convolve(
    x: torch.Tensor,
    kernel: torch.Tensor,
    strides: Sequence[int],
    same: bool,
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Convolves maps `(N, C, H, W)` with Keras's kernel `(H, W, C, D)`."""
    kernel = kernel.permute(3, 2, 0, 1)
    layout = torch.channels_last
    padding: Sequence[int] = (0, 0)
    if same:
        x, padding = pad_same(x, kernel.shape[2:], strides, dilation)
    return functional.conv2d(
        x.contiguous(memory_format=layout),
        kernel.contiguous(memory_format=layout),
        None,
        tuple(strides),
        tuple(padding),
        tuple(dilation),
        groups,
    )


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
    scale: torch.Tensor | None,
    offset: torch.Tensor | None,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalizes a batch `(N, C, ...)` of at least two values a channel.

    Returns:
        The normalized batch, and its mean and biased variance `(C,)`, in
        float32 if `x` has half precision.
    """
    x, dtype = _widened(x)
    count = x.numel() // x.shape[1]
    # A momentum of 1 keeps nothing of what is there.
    moments = torch.zeros((2, x.shape[1]), dtype=dtype, device=x.device)
    mean, variance = moments.unbind()
    y = functional.batch_norm(
        x,
        mean,
        variance,
        _in(scale, dtype),
        _in(offset, dtype),
        training=True,
        momentum=1.0,
        eps=epsilon,
    )
    # PyTorch keeps the unbiased variance, Keras the biased one.
    return y, mean, variance * ((count - 1) / count)


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


def _widened(x: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
    """Returns a batch and the dtype of its statistics and weights."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return (x if x.dtype in HALF else x.to(dtype)), dtype


def _in(x: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if x is None else x.to(dtype)
