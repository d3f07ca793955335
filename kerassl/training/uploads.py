"""Copies batches to a GPU while it still works on the step before."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np


class Uploads:
    """Copies batches to a GPU through pinned memory, on PyTorch.

    A copy from other memory makes the host wait until the GPU has finished all
    steps before. The copies have a stream of their own, so that they need not
    wait for these steps either.

    Args:
        device: `torch.device`, a GPU.
    """

    def __init__(self, device: Any):
        import torch

        self.device = device
        self.stream = torch.cuda.Stream(device)

    def begin(self, batch: Any) -> tuple[Any, Any]:
        """Begins to copy the arrays and tensors of a batch, in any thread.

        Args:
            batch: array, tensor, or a dict, list or tuple of them. Anything
                else in it, such as text, stays as it is.

        Returns:
            A pair, for `end`.
        """
        import torch

        # It also chooses the GPU, which each thread does for itself.
        with torch.cuda.stream(self.stream):
            copy = keras.tree.map_structure(self._send, batch)
            return copy, self.stream.record_event()

    def end(self, begun: tuple[Any, Any]) -> Any:
        """Returns the batch, for the steps that are started after this.

        Args:
            begun: the result of `begin`.
        """
        import torch

        batch, event = begun
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(event)
        for value in keras.tree.flatten(batch):
            if isinstance(value, torch.Tensor) and value.is_cuda:
                value.record_stream(stream)
        return batch

    def ahead(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields batches on the GPU, each after the next one has begun.

        Args:
            batches: iterable.
        """
        begun = None
        for batch in batches:
            following = self.begin(batch)
            if begun is not None:
                yield self.end(begun)
            begun = following
        if begun is not None:
            yield self.end(begun)

    def _send(self, value: Any) -> Any:
        import torch

        if isinstance(value, np.ndarray) and value.dtype in _dtypes():
            pinned = torch.empty(
                value.shape,
                dtype=_dtypes()[value.dtype],
                device="cpu",
                pin_memory=True,
            )
            # `torch.from_numpy` warns about arrays that can't be written to.
            np.copyto(pinned.numpy(), value)
        elif isinstance(value, torch.Tensor) and _is_on_host(value):
            pinned = value.pin_memory()
        else:
            return value
        return pinned.to(self.device, non_blocking=True)


def uploads() -> Uploads | None:
    """Returns what copies batches to the GPU in use, or `None` without one.

    Other backends than PyTorch copy ahead on their own.
    """
    if keras.backend.backend() != "torch":
        return None
    device = keras.ops.zeros(()).device
    return _uploads(device) if device.type == "cuda" else None


def rows_ahead(x: Any, batch_size: int, shuffle: bool = False) -> Any:
    """Returns arrays as a `DataLoader` that copies batches to the GPU in use.

    Args:
        x: array or tensor `(N, ...)`, a dict of them, or a tuple of such
            images and labels.
        batch_size: int > 0.
        shuffle: bool. Whether each epoch has its own order, as in Keras.

    Returns:
        The loader; `x` itself without a GPU, or if `x` isn't in the host's
        memory as NumPy's or PyTorch's.
    """
    found, arrays = uploads(), keras.tree.flatten(x)
    if found is None or not all(map(_is_on_host, arrays)):
        return x
    ahead = found.ahead
    from torch.utils import data

    class Rows(data.Dataset):
        def __len__(self) -> int:
            return len(arrays[0])

        def __getitems__(self, places: list[int]) -> Any:
            return keras.tree.map_structure(lambda array: array[places], x)

    order = data.RandomSampler if shuffle else data.SequentialSampler
    batches = data.DataLoader(
        Rows(),
        batch_sampler=data.BatchSampler(order(Rows()), batch_size, False),
        collate_fn=lambda x: x if isinstance(x, tuple) else (x,),
    )

    class Ahead(data.IterableDataset):
        def __len__(self) -> int:
            return len(batches)

        def __iter__(self) -> Iterator[Any]:
            return ahead(batches)

    return data.DataLoader(Ahead(), batch_size=None)


def _is_on_host(x: Any) -> bool:
    import torch

    is_tensor = isinstance(x, torch.Tensor) and x.device.type == "cpu"
    return is_tensor or isinstance(x, np.ndarray)


@functools.cache
def _uploads(device: Any) -> Uploads:
    return Uploads(device)


@functools.cache
def _dtypes() -> dict[np.dtype, Any]:
    """Returns PyTorch's dtypes of the NumPy dtypes that Keras keeps."""
    import torch

    names = ["uint8", "int8", "int16", "int32", "int64"]
    names += ["float16", "float32", "float64", "bool"]
    return {np.dtype(name): getattr(torch, name) for name in names}
