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
        elif isinstance(value, torch.Tensor) and value.device.type == "cpu":
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
