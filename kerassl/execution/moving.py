"""The moving statistics of all batch normalizations of a network."""

from collections import Counter
from collections.abc import Callable
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
        self._sizes: list[int] = []
        self._factors: dict[tuple, torch.Tensor] = {}
        self._groups: dict[tuple, list[tuple[float, list[int]]]] = {}
        self._probe = keras.Variable([], dtype="float32", name="probe")

    def add(self, norm: Any) -> int:
        """Adds a layer, and returns its index."""
        self.norms.append(norm)
        self._sizes.append(norm.moving_mean.shape[0])
        return len(self.norms) - 1

    def moments(
        self, device: torch.device
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Returns zeros for the means of all layers, then for variances.

        Returns:
            All in one tensor, and its parts, of one layer each.
        """
        total = 2 * sum(self._sizes)
        zeros = torch.zeros(total, dtype=torch.float32, device=device)
        return zeros, zeros.split(2 * self._sizes)

    @torch.no_grad()
    def move(
        self,
        moments: torch.Tensor,
        counts: dict[int, int],
        value: Callable[[Any], torch.Tensor],
        in_scope: bool,
    ) -> None:
        """Moves the statistics of some layers towards those of a batch.

        Args:
            moments: what `moments` returned, filled with means and unbiased
                variances.
            counts: for the index of each layer, the number of its values a
                channel.
            value: function that returns a variable's tensor.
            in_scope: bool. Whether a `StatelessScope` takes assignments.
        """
        means, variances = moments.view(2, -1).unbind()
        # PyTorch gives the unbiased variance, Keras keeps the biased one. Not
        # in place, for the backward pass holds on to it.
        if torch.compiler.is_compiling():
            # The compiler joins these, and would trace what is kept twice.
            biased = [
                variance * ((counts.get(i, 2) - 1) / counts.get(i, 2))
                for i, variance in enumerate(variances.split(self._sizes))
            ]
        else:
            factor = self._factor(counts, moments.device)
            biased = (variances * factor).split(self._sizes)
        parts = (means.split(self._sizes), biased)
        if in_scope:
            for i in counts:
                self.norms[i].keep(*(part[i] for part in parts))
            return
        for momentum, some in self._grouped(tuple(counts)):
            norms = [self.norms[i] for i in some]
            old = [value(norm.moving_mean) for norm in norms]
            old += [value(norm.moving_variance) for norm in norms]
            new = [part[i] for part in parts for i in some]
            multi_tensor.move(old, new, rate=momentum - 1, weight_decay=-1.0)

    def _grouped(self, some: tuple[int, ...]) -> list[tuple[float, list[int]]]:
        """Returns momentums, each with layers to move at once."""
        if torch.compiler.is_compiling():
            return self._group(some)
        key = (*some, *(self.norms[i].momentum for i in some))
        if key not in self._groups:
            self._groups[key] = self._group(some)
        return self._groups[key]

    def _group(self, some: tuple[int, ...]) -> list[tuple[float, list[int]]]:
        calls: Counter[int] = Counter()
        groups: dict[tuple[int, float], list[int]] = {}
        for i in some:
            norm = self.norms[i]
            # The second call of a layer starts from the result of the first.
            key = (calls[id(norm)], norm.momentum)
            calls[id(norm)] += 1
            groups.setdefault(key, []).append(i)
        return [(momentum, some) for (_, momentum), some in groups.items()]

    def _factor(
        self, counts: dict[int, int], device: torch.device
    ) -> torch.Tensor:
        """Returns for each channel the biased over the unbiased variance."""
        key = (*counts.items(), device)
        if key not in self._factors:
            factors = [
                (counts[i] - 1) / counts[i] if i in counts else 1.0
                for i, size in enumerate(self._sizes)
                for _ in range(size)
            ]
            self._factors[key] = torch.tensor(
                factors, dtype=torch.float32, device=device
            )
        return self._factors[key]

    def in_scope(self) -> bool:
        """Returns whether a `StatelessScope` takes assignments."""
        empty = torch.empty(0, device=self._probe.value.device)
        self._probe.assign(empty)
        return self._probe.value is empty
