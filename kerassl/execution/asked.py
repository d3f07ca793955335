"""What Keras asks all layers of a model for, remembered from step to step."""

from typing import Any

import keras

from kerassl.networks import all_layers


def asked_once(model: Any) -> type:
    """Returns a class for one model, which knows its weights and metrics.

    Keras collects them from all layers several times a step, which on PyTorch
    takes longer than a ResNet's optimizer. They are collected anew when a layer
    or a variable has been frozen or thawed.

    Args:
        model: a compiled `keras.Model`. After `compile`, or with other layers,
            it needs a new class.
    """
    kind: Any = type(model)
    # Layers first: those of a `MomentumNetwork` have frozen variables.
    members = [*all_layers(model), *model.variables]
    flags: list[bool] = []
    parameters: list[Any] = []

    def collected(name: str) -> list:
        return getattr(kind, name).fget(model)

    def refresh() -> None:
        """Collects weights and metrics, if they may be others now."""
        now = [member.trainable for member in members]
        if now != flags:
            flags[:] = now
            kind.zero_grad(model)  # Of what is frozen now, too.
            for name in ("trainable_weights", "metrics"):
                setattr(own, name, collected(name))
            own.trainable_variables = own.trainable_weights
            parameters[:] = [v.value for v in own.trainable_weights]

    def zero_grad(self: Any, set_to_none: bool = True) -> None:
        """Drops the gradients of the last step."""
        for parameter in parameters:
            parameter.grad = None

    contents: dict[str, Any] = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "zero_grad": zero_grad,
        "refresh": staticmethod(refresh),
    }
    if not any(map(_may_add_losses, members)):
        contents["losses"] = property(lambda self: [])
    if model.jit_compile:
        import torch

        for name in model.compiled_parts:
            # For a last batch of another size they are compiled once more:
            # Keras's functions don't take a size that is unknown.
            contents[name] = torch.compile(getattr(kind, name), dynamic=False)
    own: Any = type(kind.__name__, (kind,), contents)
    return own


def _may_add_losses(member: Any) -> bool:
    """Returns whether a layer or variable may add to a model's loss."""
    if isinstance(member, keras.Variable):
        return member.regularizer is not None
    library = type(member).__module__.partition(".")[0]
    return (
        library not in ("keras", "kerassl")
        or isinstance(member, keras.layers.ActivityRegularization)
        or member.activity_regularizer is not None
    )
