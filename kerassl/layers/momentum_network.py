"""The momentum network: a slow copy of a network that makes the targets."""

import math
import weakref
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl.image_format import channels_last, pinned
from kerassl.networks import finalize, owners, set_trainable


@keras.saving.register_keras_serializable(package="kerassl")
class CosineMomentum(keras.optimizers.schedules.LearningRateSchedule):
    """A momentum that rises from `base` to 1 along half a cosine.

    `1 - (1 - base) * (1 + cos(pi * step / total_steps)) / 2`, as in BYOL and
    MoCo v3, once for each optimizer step.

    Args:
        base: float in [0, 1]. The momentum at the first step.
        total_steps: int > 0. The optimizer steps of the run; later it stays 1.

    Reference:
        - [Grill et al., 2020, BYOL](https://arxiv.org/abs/2006.07733)
    """

    def __init__(self, base: float, total_steps: int):
        if not 0 <= base <= 1 or total_steps < 1:
            raise ValueError(
                "`base` must be in [0, 1] and `total_steps` positive. "
                f"Received: base={base}, total_steps={total_steps}"
            )
        self.base = base
        self.total_steps = total_steps

    def __call__(self, step: Any) -> Any:
        """Returns the float32 momentum at a (scalar, maybe traced) step."""
        done = ops.cast(step, "float32") / self.total_steps
        cosine = ops.cos(math.pi * ops.minimum(done, 1.0))
        return 1.0 - (1.0 - self.base) * 0.5 * (1.0 + cosine)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {"base": self.base, "total_steps": self.total_steps}


@keras.saving.register_keras_serializable(package="kerassl")
class MomentumNetwork(keras.layers.Layer):
    """A copy of a network whose parameters follow it slowly.

    The copy never gets gradients. Its batch normalization still works in
    training mode, on its own batches and with its own moving statistics, as in
    the code of MoCo and BYOL: `update` moves the *parameters* alone. (Setting
    `trainable = False` on a Keras layer would switch batch normalization to
    inference; so the variables are frozen here, and not the layers.)

    What is frozen in the network is equal in the copy, and its batch
    normalization there works in inference mode here, too. What is thawed later
    is followed. As everywhere in Keras, freezing and thawing take effect with
    `compile`. The weights of layers that are trained are taken once, when the
    copy is made: load trained ones into the network before.

    Args:
        network: a built `keras.Model` or layer, to follow.
        momentum: float in [0, 1], or a callable from the step to it, such as
            `CosineMomentum`.
        copy_weights: bool. `True` starts from the network's weights, `False`
            from new random ones (BYOL's target), but for what is frozen.
        **kwargs: the arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if the network has no weights yet.

    Example:
    ```python
    self.momentum_encoder = MomentumNetwork(self.encoder, momentum=0.99)
    ...
    def after_update(self):
        self.momentum_encoder.update(self.encoder, self.optimizer.iterations)
    ```

    Reference:
        - [He et al., 2020, MoCo](https://arxiv.org/abs/1911.05722)
        - [Grill et al., 2020, BYOL](https://arxiv.org/abs/2006.07733)
    """

    def __init__(
        self,
        network: keras.layers.Layer,
        momentum: Any = 0.99,
        copy_weights: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not network.built or not network.weights:
            raise ValueError(
                f"The network {network.name!r} has no weights yet. Build it "
                "(call it on a batch) before making its momentum copy."
            )
        if not callable(momentum) and not 0 <= momentum <= 1:
            raise ValueError(
                f"`momentum` must be in [0, 1]. Received: {momentum}"
            )
        self.momentum = momentum
        self.copy_weights = copy_weights
        with channels_last():
            self.network = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(network)
            )
        pinned(self.network)
        if not self.network.built:
            raise ValueError(
                f"A copy of {network.name!r} made from its config is not "
                "built. Give a Functional or Sequential model, or implement "
                "`build` and `get_build_config`."
            )
        # A copy of frozen layers is frozen: thawed, it shows what is trained.
        set_trainable(self.network, True)
        # Indices, since variables kept as an attribute would be saved twice.
        self.parameters_at = tuple(
            i for i, w in enumerate(self.network.weights) if w.trainable
        )
        # Not a part of this layer, which Keras would save with it.
        self._followed = weakref.ref(network)
        taken = set(range(len(network.weights)))
        if not copy_weights:
            taken -= set(self.parameters_at)
        self._copy(network, taken)
        self.follow()
        self.built = True

    @property
    def trainable(self) -> bool:
        """Always `False`; setting it changes nothing."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        # A model's setter recurses, and would unfreeze the variables.
        self._trainable = False

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Runs the copy; no gradient passes."""
        outputs = self.network(ops.stop_gradient(inputs), training=training)
        return keras.tree.map_structure(ops.stop_gradient, outputs)

    def follow(self) -> None:
        """Freezes, thaws and copies what is frozen or not in the network.

        `SelfSupervisedModel` calls it when it is compiled, and before it
        trains.

        Raises:
            ValueError: if the network got other weights than the copy has.
        """
        network = self._followed()
        if network is None:
            return
        sources, targets = network.weights, self.network.weights
        shapes = [[tuple(w.shape) for w in of] for of in (sources, targets)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"The network {network.name!r} has other weights than when its "
                "momentum copy was made. Change its layers before."
            )
        layers = list(zip(owners(network), owners(self.network)))
        # Outer layers come first, and freeze their inner ones too.
        for source, target in layers:
            if target.trainable != source.trainable:
                target.trainable = source.trainable
        for weight in targets:
            weight.trainable = False
        frozen = [
            i
            for i, (layer, _) in enumerate(layers)
            if isinstance(layer, keras.layers.Normalization)
            or not (sources[i] if i in self.parameters_at else layer).trainable
        ]
        self._copy(network, frozen)

    def _copy(self, network: keras.layers.Layer, places: Iterable[int]) -> None:
        """Takes over some weights, and what they imply."""
        sources, targets = network.weights, self.network.weights
        for i in places:
            # Copied: sharing JAX's arrays would donate a buffer twice.
            targets[i].assign(np.array(ops.convert_to_numpy(sources[i])))
        finalize(self.network)

    def update(self, network: keras.layers.Layer, step: Any) -> None:
        """Moves the parameters: `copy = m * copy + (1 - m) * network`.

        Frozen ones are equal in both, and stay so.

        Args:
            network: the network to follow.
            step: scalar, the optimizer steps so far: a callable momentum is
                evaluated there.
        """
        momentum = self.momentum(step) if callable(self.momentum) else None
        sources = network.weights
        targets = self.network.weights
        for i in self.parameters_at:
            target = ops.convert_to_tensor(targets[i])
            # PyTorch would record a graph of the average otherwise.
            source = ops.stop_gradient(ops.convert_to_tensor(sources[i]))
            m = (
                self.momentum
                if momentum is None
                else ops.cast(momentum, target.dtype)
            )
            targets[i].assign(target + (1 - m) * (source - target))

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "network": serialize(self.network),
            "momentum": serialize(self.momentum)
            if callable(self.momentum)
            else self.momentum,
            "copy_weights": self.copy_weights,
        }

    @classmethod
    def from_config(cls, config: dict) -> "MomentumNetwork":
        """Builds the layer from `get_config`'s dict."""
        config = dict(config)
        for name in ("network", "momentum"):
            if isinstance(config[name], dict):
                with channels_last():
                    config[name] = keras.saving.deserialize_keras_object(
                        config[name]
                    )
        return cls(**config)
