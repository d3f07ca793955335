"""The momentum network: a slowly moving copy of a network, for targets."""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl.models import copied, uncompiled
from kerassl.networks import finalize, owners, set_trainable
from kerassl.optimizers import Ramp, multi_tensor


@keras.saving.register_keras_serializable(package="kerassl")
class CosineMomentum(Ramp):
    """A momentum that rises from `base` to 1 along half a cosine.

    `1 - (1 - base) * (1 + cos(pi * step / total_steps)) / 2`, as in BYOL and
    MoCo v3, once for each optimizer step.

    Args:
        base: float in [0, 1]. The momentum at the first step.
        total_steps: int > 0, the optimizer steps of the run. After them the
            momentum stays 1.

    Reference:
        - [Grill et al., 2020, BYOL](https://arxiv.org/abs/2006.07733)
    """

    def __init__(self, base: float, total_steps: int):
        if not 0 <= base <= 1 or total_steps < 1:
            raise ValueError(
                "`base` must be in [0, 1] and `total_steps` positive. "
                f"Received: base={base}, total_steps={total_steps}"
            )
        super().__init__(base, 1.0, total_steps)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {"base": self.start, "total_steps": self.steps}


@keras.saving.register_keras_serializable(package="kerassl")
class MomentumNetwork(keras.layers.Layer):
    """A copy of a network whose parameters follow it slowly.

    The copy never gets gradients. Its batch normalization still runs in
    training mode, with the statistics of its own batches and its own moving
    averages, as in the code of MoCo and BYOL: `update` moves only *parameters*.
    (Setting `trainable = False` on a Keras layer would switch batch
    normalization to inference mode, so the variables are frozen, not the
    layers.)

    Layers that are frozen in the network are equal and frozen in the copy, with
    batch normalization in inference mode. Layers thawed later are followed
    again. As usual in Keras, freezing and thawing take effect with `compile`.
    The weights of trainable layers are copied once, when the copy is made, so
    load pretrained weights into the network before that.

    Args:
        network: a built `keras.Model` or layer to follow.
        momentum: float in [0, 1], or a callable that returns it for a step,
            such as `CosineMomentum`.
        copy_weights: bool. `True` starts from the network's weights, `False`
            from new random ones (BYOL's target) except in frozen layers.
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
        config = keras.saving.serialize_keras_object(network)
        self.network = copied(uncompiled(config))
        if not self.network.built:
            raise ValueError(
                f"A copy of {network.name!r} from its config is not built. "
                "Pass a Functional or Sequential model, or implement `build` "
                "and `get_build_config`."
            )
        # Thaw the copy: then `trainable` tells parameters from statistics.
        set_trainable(self.network, True)
        # Indices, since variables in an attribute would be saved twice.
        self.parameters_at = tuple(
            i for i, w in enumerate(self.network.weights) if w.trainable
        )
        # A weak reference, since Keras would save an attribute with this layer.
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
        # The setter of a model recurses, and would unfreeze the variables.
        self._trainable = False

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Runs the copy, without gradient."""
        outputs = self.network(ops.stop_gradient(inputs), training=training)
        return keras.tree.map_structure(ops.stop_gradient, outputs)

    def follow(self) -> None:
        """Freezes and thaws layers as in the network, and copies frozen ones.

        `SelfSupervisedModel` calls this in `compile`, and before training.

        Raises:
            ValueError: if the weights of the network and of the copy no longer
                match.
        """
        network = self._followed()
        if network is None:
            return
        sources, targets = network.weights, self.network.weights
        shapes = [[tuple(w.shape) for w in of] for of in (sources, targets)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"The network {network.name!r} has other weights than when its "
                "momentum copy was made. Change its layers before that."
            )
        layers = list(zip(owners(network), owners(self.network)))
        # Outer layers come first, since they set their inner layers too.
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

    def _copy(
        self, network: keras.layers.Layer, indices: Iterable[int]
    ) -> None:
        """Copies some weights of the network."""
        sources, targets = network.weights, self.network.weights
        for i in indices:
            # Through NumPy: with a shared JAX array, a step would donate one
            # buffer twice.
            targets[i].assign(np.array(ops.convert_to_numpy(sources[i])))
        finalize(self.network)

    def update(self, network: keras.layers.Layer, step: Any) -> None:
        """Moves the parameters: `copy = m * copy + (1 - m) * network`.

        Frozen parameters are equal in both, and stay equal.

        Args:
            network: the network to follow.
            step: scalar, the optimizer steps so far, the argument of a callable
                momentum.
        """
        update_together([(self, network)], step)

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
        """Makes the layer from the result of `get_config`."""
        config = dict(config)
        for name in ("network", "momentum"):
            if isinstance(config[name], dict):
                config[name] = copied(config[name])
        return cls(**config)


def update_together(
    pairs: Sequence[tuple[MomentumNetwork, keras.layers.Layer]], step: Any
) -> None:
    """Updates momentum networks with the same momentum, at once on PyTorch.

    Args:
        pairs: list of momentum networks, and the networks to follow.
        step: as in `MomentumNetwork.update`.
    """
    momentum = pairs[0][0].momentum
    if callable(momentum):
        momentum = momentum(step)
    moves = [
        (copy.network.weights[i], network.weights[i])
        for copy, network in pairs
        for i in copy.parameters_at
    ]
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            multi_tensor.move(
                [target.value for target, _ in moves],
                [source.value for _, source in moves],
                rate=momentum - 1,
                weight_decay=-1.0,
            )
        return
    for target, source in moves:
        old = ops.convert_to_tensor(target)
        new = ops.convert_to_tensor(source)
        share = 1 - momentum
        if ops.is_tensor(share):
            share = ops.cast(share, old.dtype)
        target.assign(old + share * (new - old))
