"""LARS, layer-wise adaptive rate scaling."""

from typing import Any

import keras
from keras import ops

from kerassl.optimizers import multi_tensor
from kerassl.optimizers.adamw import NAMES


@keras.saving.register_keras_serializable(package="kerassl")
class LARS(keras.optimizers.Optimizer):
    """Momentum SGD whose steps are scaled by the norm of each kernel.

    For a kernel `w` with gradient `g`:

    ```
    u = g + weight_decay * w
    trust = trust_coefficient * |w| / |u|       (1 where either norm is 0)
    m = momentum * m - learning_rate * trust * u
    w = w + m
    ```

    Biases (of any rank; those of attention have rank 2), the scales and offsets
    of normalization layers, and all other variables of rank 0 and 1 get neither
    weight decay nor the trust ratio, as in the code of SimCLR, BYOL, MoCo v3
    and Barlow Twins.

    Args:
        learning_rate: float, schedule or callable. Typical values are larger
            than for SGD: SimCLR uses 0.3 for a batch of 256.
        momentum: float in [0, 1).
        weight_decay: float >= 0. L2 penalty, added to the gradient before the
            norm is computed (Keras's own optimizers decay weights directly).
        trust_coefficient: float > 0, the paper's eta.
        exclude_bias_and_norm: bool. `False` treats all variables as kernels.
        bias_rate_scale: float > 0. A factor for the learning rate of excluded
            variables. Barlow Twins' code uses 0.024, since its loss is large
            and these variables have no trust ratio to compensate.
        **kwargs: the other arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
    ```python
    rate = kerassl.optimizers.warmup_cosine(0.3, total_steps=10_000)
    optimizer = kerassl.optimizers.LARS(rate, weight_decay=1e-6)
    ```

    Reference:
        - [You et al., 2017](https://arxiv.org/abs/1708.03888)
        - google-research/simclr, `tf2/lars_optimizer.py` (classic momentum:
          the learning rate is inside it).
    """

    def __init__(
        self,
        learning_rate: Any = 0.3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        exclude_bias_and_norm: bool = True,
        bias_rate_scale: float = 1.0,
        name: str = "lars",
        **kwargs: Any,
    ):
        # Keras would apply its own `weight_decay` outside of the trust ratio.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(
                f"`momentum` must be in [0, 1). Received: {momentum}"
            )
        if weight_decay < 0 or trust_coefficient <= 0 or bias_rate_scale <= 0:
            raise ValueError(
                "`weight_decay` must be >= 0, `trust_coefficient` and "
                "`bias_rate_scale` > 0. Received: "
                f"weight_decay={weight_decay}, "
                f"trust_coefficient={trust_coefficient}, "
                f"bias_rate_scale={bias_rate_scale}"
            )
        self.momentum = momentum
        self.l2 = weight_decay
        self.trust_coefficient = trust_coefficient
        self.exclude_bias_and_norm = exclude_bias_and_norm
        self.bias_rate_scale = bias_rate_scale

    def build(self, variables: list) -> None:
        """Creates a momentum slot for each variable."""
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")
        # Found here, since TensorFlow passes its own variables, with other
        # names, to `update_step`.
        self.is_kernel = [
            len(variable.shape) > 1 and variable.name not in NAMES
            for variable in variables
        ]
        if keras.backend.backend() == "torch" and variables:
            # Numbers are sent to the device once, not in each step.
            self._constants: dict = {}
            self._constants_of(
                tuple(i for i, x in enumerate(self.momentums) if x is not None)
            )

    def _backend_update_step(
        self, grads: list, trainable_variables: list, learning_rate: Any
    ) -> None:
        """Updates all variables: on PyTorch together, in a few kernels."""
        if keras.backend.backend() == "torch":
            tensors = [variable.value for variable in trainable_variables]
            if multi_tensor.is_uniform(tensors):
                grads = [g.to(x.dtype) for g, x in zip(grads, tensors)]
                indices = [
                    self._get_variable_index(variable)
                    for variable in trainable_variables
                ]
                rate = -ops.convert_to_tensor(learning_rate)
                self._update_together(tensors, grads, indices, rate)
                return
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _update_together(
        self, tensors: list, grads: list, indices: list[int], rate: Any
    ) -> None:
        import torch

        rows, adapts, decay, plain = self._constants_of(tuple(indices))
        with torch.no_grad():
            weights = rows.join(tensors, tensors)
            updates = rows.join(grads, tensors)
            if self.l2:
                updates.addcmul_(weights, rows.spread(decay))
            weight_norms, update_norms = rows.norms(weights, updates)
            adapts = adapts & (weight_norms > 0) & (update_norms > 0)
            ratio = self.trust_coefficient * weight_norms / update_norms
            rates = torch.where(adapts, ratio, plain) * rate
            updates.mul_(rows.spread(rates))
            # The learning rate is inside the momentum, with the sign of a step.
            multi_tensor.move(
                tensors,
                rows.split(updates, tensors),
                [self.momentums[i].value for i in indices],
                momentum=self.momentum,
                rate=-1.0,
            )

    def _constants_of(self, indices: tuple[int, ...]) -> tuple:
        """Returns by variable: rows, if it adapts, decay, factor if not."""
        import torch

        if indices not in self._constants:
            slots = [self.momentums[i].value for i in indices]
            adapts = [
                self.is_kernel[i] or not self.exclude_bias_and_norm
                for i in indices
            ]
            decay = [self.l2 * adapt for adapt in adapts]
            plain = [1.0 if one else self.bias_rate_scale for one in adapts]
            device = slots[0].device
            self._constants[indices] = (
                multi_tensor.Rows([slot.numel() for slot in slots], device),
                *(
                    torch.tensor(x, device=device)
                    for x in (adapts, decay, plain)
                ),
            )
        return self._constants[indices]

    def update_step(
        self, gradient: Any, variable: keras.Variable, learning_rate: Any
    ) -> None:
        """Updates one variable."""
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        # As in Keras's own optimizers: on TensorFlow `variable` isn't the one
        # that `build` got.
        index = self._get_variable_index(variable)
        if self.is_kernel[index] or not self.exclude_bias_and_norm:
            gradient = gradient + self.l2 * ops.convert_to_tensor(variable)
            # In float32 at least, as squares exceed float16. Flattened, since
            # TensorFlow's `norm` doesn't accept scalars.
            wide = keras.backend.result_type(variable.dtype, "float32")
            weight_norm, update_norm = (
                ops.norm(ops.reshape(ops.cast(x, wide), (-1,)))
                for x in (variable, gradient)
            )
            adapts = ops.logical_and(weight_norm > 0, update_norm > 0)
            # The inner `where` keeps the unused branch finite.
            one = ops.ones_like(weight_norm)
            ratio = weight_norm / ops.where(adapts, update_norm, one)
            trust = ops.where(adapts, self.trust_coefficient * ratio, one)
            rate = rate * ops.cast(trust, rate.dtype)
        else:
            rate = rate * self.bias_rate_scale
        slot = self.momentums[index]
        velocity = ops.convert_to_tensor(slot) * self.momentum
        velocity = velocity - rate * gradient
        self.assign(slot, velocity)
        self.assign_add(variable, velocity)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.l2,
            "trust_coefficient": self.trust_coefficient,
            "exclude_bias_and_norm": self.exclude_bias_and_norm,
            "bias_rate_scale": self.bias_rate_scale,
        }
