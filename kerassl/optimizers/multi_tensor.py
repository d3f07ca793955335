"""Updates of many tensors in a few kernels, on PyTorch.

PyTorch's own multi-tensor functions are private, except through its
optimizers: `torch.optim.sgd.sgd` is public, and moves a list of tensors in one
kernel. Norms have no such way, so tensors are joined to a matrix for them.
"""

import itertools
from collections.abc import Sequence
from typing import Any

# Many short sums are exact and quick. A tensor wastes half a row.
WIDTH = 4096


def is_uniform(tensors: Sequence[Any]) -> bool:
    """Says whether all tensors have one type and are on one device."""
    return len({(tensor.dtype, tensor.device) for tensor in tensors}) == 1


def move(
    parameters: Sequence[Any],
    gradients: Sequence[Any],
    velocities: Sequence[Any] | None = None,
    momentum: float = 0.0,
    rate: Any = 1.0,
    weight_decay: float = 0.0,
) -> None:
    """Moves parameters in place, as SGD does.

    Gradients `g + weight_decay * p` are added to `momentum` times the
    velocities, and the sum, times the rate, is subtracted from the parameters.

    Args:
        parameters: list of tensors.
        gradients: list of tensors of the same shapes.
        velocities: list of tensors of the same shapes, `None` without momentum.
        momentum: float.
        rate: float, or float32 tensor of shape `()`, which the host doesn't
            read.
        weight_decay: float.
    """
    import torch
    from torch.optim.sgd import sgd

    lists = [
        [in_memory_order(x, like) for x, like in zip(tensors, parameters)]
        for tensors in (parameters, gradients, velocities or [])
    ]
    # The fused kernel takes a tensor's memory as it lies, and isn't traced. In
    # half precision PyTorch's for CPUs moves nothing (pytorch#191763).
    fused = not torch.compiler.is_compiling() and all(
        x.is_contiguous() and x.dtype.itemsize >= torch.float32.itemsize
        for tensors in lists
        for x in tensors
    )
    sgd(
        lists[0],
        lists[1],
        lists[2] or [None] * len(parameters),
        fused=fused,
        foreach=not fused,
        lr=rate,
        weight_decay=weight_decay,
        momentum=momentum,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )


def in_memory_order(tensor: Any, like: Any) -> Any:
    """Returns a view whose axes are ordered as in another tensor's memory.

    Args:
        tensor: tensor.
        like: tensor of that shape.
    """
    return tensor if like.is_contiguous() else tensor.permute(_order(like))


def _order(tensor: Any) -> list[int]:
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


class Rows:
    """The rows of a matrix that holds tensors, each from a new row on.

    The last row is empty: zeros.

    Args:
        sizes: the number of elements of each tensor.
        device: `torch.device`.
    """

    def __init__(self, sizes: Sequence[int], device: Any):
        import torch

        counts = [-(-size // WIDTH) for size in sizes]
        self.sizes = sizes
        self.spans = [WIDTH * count for count in counts]
        self.zeros: dict = {}
        owners = [i for i, count in enumerate(counts) for _ in range(count)]
        total, longest = len(owners), max(counts)
        edges = itertools.accumulate(counts, initial=0)
        # Each tensor's rows, filled up with the last row of the matrix.
        table = [
            [first + i if i < count else total for i in range(longest)]
            for first, count in zip(edges, counts)
        ]
        # The last row, of zeros, belongs to the first tensor as well.
        self.owners = torch.tensor([*owners, 0], device=device)
        self.table = torch.tensor(table, device=device)

    def join(self, tensors: Sequence[Any], like: Sequence[Any]) -> Any:
        """Returns the matrix of tensors, each in another's memory order."""
        import torch

        dtype = tensors[0].dtype
        if dtype not in self.zeros:
            self.zeros[dtype] = tensors[0].new_zeros(WIDTH)
        parts = []
        for tensor, other, size, span in zip(
            tensors, like, self.sizes, self.spans
        ):
            parts.append(in_memory_order(tensor, other).reshape(-1))
            if span > size:
                parts.append(self.zeros[dtype][: span - size])
        return torch.cat([*parts, self.zeros[dtype]]).view(-1, WIDTH)

    def split(self, matrix: Any, like: Sequence[Any]) -> list[Any]:
        """Returns the tensors of a matrix, as views with the given shapes."""
        views = []
        spans = matrix.view(-1)[:-WIDTH].split(self.spans)
        for span, size, other in zip(spans, self.sizes, like):
            shape = in_memory_order(other, other).shape
            view = span[:size].view(shape)
            if not other.is_contiguous():
                order = _order(other)
                view = view.permute([order.index(i) for i in range(view.ndim)])
            views.append(view)
        return views

    def norms(self, *matrices: Any) -> Any:
        """Returns tensors' norms, `(matrices, tensors)`, at least in float32.

        PyTorch's `segment_reduce` would do without a table, but not on all
        devices.
        """
        import torch

        dtype = torch.promote_types(matrices[0].dtype, torch.float32)
        norms = torch.stack(
            [
                torch.linalg.vector_norm(matrix, dim=1, dtype=dtype)
                for matrix in matrices
            ]
        )
        return norms.square()[:, self.table].sum(-1).sqrt()

    def spread(self, values: Any) -> Any:
        """Returns a column with each tensor's value in its rows."""
        return values[self.owners][:, None]
