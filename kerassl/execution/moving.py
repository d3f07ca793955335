"""The moving statistics of all batch normalizations of a network."""

from collections import Counter
from typing import Any

import keras
import torch

from kerassl.optimizers import multi_tensor


class MovingStatistics:
    """Moves the statistics of many layers with a few kernels after a pass.

    Attributes:
        norms: the layers, in the order of their calls. A layer that is called
            twice is there twice.
    """

    def __init__(self) -> None:
        self.norms: list[Any] = []
        self._factors: dict[tuple, torch.Tensor] = {}
        self._probe = keras.Variable([], dtype="float32", name="probe")

    def add(self, norm: Any) -> int:
        """Adds a layer, and returns its index."""
        self.norms.append(norm)
        return len(self.norms) - 1

    def moments(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Returns zeros for the means of all layers, then for variances."""
        sizes = self._sizes()
        total = 2 * sum(sizes)
        return torch.zeros(total, dtype=torch.float32, device=device).split(
            2 * sizes
        )

    @torch.no_grad()
    def move(
        self, moments: tuple[torch.Tensor, ...], counts: dict[int, int]
    ) -> None:
        """Moves the statistics of some layers towards those of a batch.

        Args:
            moments: what `moments` returned, filled with means and unbiased
                variances.
            counts: for the index of each layer, the number of its values a
                channel.
        """
        some = list(counts)
        means = [moments[i] for i in some]
        variances = self._biased(
            [moments[len(self.norms) + i] for i in some], list(counts.values())
        )
        if self._in_scope():
            for i, mean, variance in zip(some, means, variances):
                self.norms[i].keep(mean, variance)
            return
        calls: Counter[int] = Counter()
        groups: dict[tuple[int, float], tuple[list, list]] = {}
        for i, mean, variance in zip(some, means, variances):
            norm = self.norms[i]
            # The second call of a layer starts from the result of the first.
            key = (calls[id(norm)], norm.momentum)
            calls[id(norm)] += 1
            old, new = groups.setdefault(key, ([], []))
            old += [norm.moving_mean.value, norm.moving_variance.value]
            new += [mean, variance]
        for (_, momentum), (old, new) in groups.items():
            multi_tensor.move(old, new, rate=momentum - 1, weight_decay=-1.0)

    def _biased(
        self, variances: list[torch.Tensor], counts: list[int]
    ) -> tuple[torch.Tensor, ...]:
        # PyTorch gives the unbiased variance, Keras keeps the biased one. Not
        # in place, for the backward pass holds on to it.
        sizes = [len(variance) for variance in variances]
        key = (*sizes, *counts)
        if key not in self._factors:
            factors = [
                (count - 1) / count
                for size, count in zip(sizes, counts)
                for _ in range(size)
            ]
            self._factors[key] = torch.tensor(
                factors, dtype=torch.float32, device=variances[0].device
            )
        return (torch.cat(variances) * self._factors[key]).split(sizes)

    def _sizes(self) -> list[int]:
        return [norm.moving_mean.shape[0] for norm in self.norms]

    def _in_scope(self) -> bool:
        """Returns whether a `StatelessScope` takes assignments."""
        empty = torch.empty(0, device=self._probe.value.device)
        self._probe.assign(empty)
        return self._probe.value is empty
