"""AdamW without weight decay for biases, normalization and LayerScale."""

from typing import Any

import keras

# Keras's names for the variables of biases and normalization layers, and
# KerasHub's for those of LayerScale.
NAMES = ("bias", "beta", "gamma", "lambda1")

# On PyTorch Keras replaces `AdamW` with a faster class when an instance is
# created, but not for subclasses. `__new__` reveals that class.
Base: Any = type(keras.optimizers.AdamW.__new__(keras.optimizers.AdamW))


@keras.saving.register_keras_serializable(package="kerassl")
class AdamW(Base):
    """Keras's AdamW, without weight decay for biases and normalization layers.

    This is the usual setting for vision transformers. The scales of KerasHub's
    LayerScale don't decay either. Keras's own class has the method
    `exclude_from_weight_decay`, but its effect is lost when a model is saved
    and loaded, as in a resumed run.

    Args:
        learning_rate: float or a schedule.
        weight_decay: float >= 0, or a callable that returns it for a step,
            such as `Ramp`. With `gradient_accumulation_steps` these are the
            updates, while Keras counts batches for the learning rate.
        exclude_bias_and_norm: bool. With `False` all variables decay.
        **kwargs: the other arguments of `keras.optimizers.AdamW`.

    Example:
    ```python
    rate = kerassl.optimizers.warmup_cosine(1.5e-4, total_steps=100_000)
    optimizer = kerassl.optimizers.AdamW(rate, weight_decay=0.05, beta_2=0.95)
    ```

    Reference:
        - [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101)
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: Any = 0.004,
        exclude_bias_and_norm: bool = True,
        name: str = "adamw",
        **kwargs: Any,
    ):
        if isinstance(weight_decay, dict):  # From a config.
            weight_decay = keras.saving.deserialize_keras_object(weight_decay)
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self.exclude_bias_and_norm = exclude_bias_and_norm
        if exclude_bias_and_norm:
            self.exclude_from_weight_decay(var_names=list(NAMES))

    @property
    def weight_decay(self) -> Any:
        """The decay of the next step, which Keras reads inside of it."""
        if callable(self.decay):
            return self.decay(self.iterations)
        return self.decay

    @weight_decay.setter
    def weight_decay(self, value: Any) -> None:
        self.decay = value

    def _apply_weight_decay(self, variables: list) -> None:
        # On PyTorch Keras fails where nothing decays.
        if any(map(self._use_weight_decay, variables)):
            super()._apply_weight_decay(variables)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "weight_decay": keras.saving.serialize_keras_object(self.decay),
            "exclude_bias_and_norm": self.exclude_bias_and_norm,
        }
