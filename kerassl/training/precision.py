"""The dtypes a model computes in, and what the device can do."""

import contextlib
from collections.abc import Iterator

import keras

from kerassl.environment import environment
from kerassl.networks import all_layers, owners


def best() -> str:
    """Returns the precision that suits the device, by what its maker says.

    Returns:
        `"mixed_bfloat16"` on TPUs and on GPUs with hardware for bfloat16
        (NVIDIA's since Ampere), else `"float32"`.
    """
    device = environment()["device"]
    if "tpu" in device:
        return "mixed_bfloat16"
    has_it = not any(name in device for name in ("cpu", "mps", "xpu"))
    return "mixed_bfloat16" if has_it and _gpu_has_it() else "float32"


def _gpu_has_it() -> bool:
    backend = keras.config.backend()
    if backend == "torch":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    if backend == "tensorflow":
        import tensorflow as tf

        (gpu, *_) = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(gpu)
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    import jax

    # "8.0" on NVIDIA's; on others it isn't a number.
    found = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major = found.partition(".")[0]
    return major.isdecimal() and int(major) >= 8


@contextlib.contextmanager
def of_new_layers(policy: str | None) -> Iterator[None]:
    """Gives the layers that are made in the block a dtype policy.

    Args:
        policy: name of a Keras dtype policy, or `None` for the global one.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def tensor_float32() -> Iterator[None]:
    """Lets PyTorch multiply float32 matrices as TF32 on GPUs that have it.

    TensorFlow and JAX do so by default, and PyTorch in convolutions.
    """
    if keras.config.backend() != "torch":
        yield
        return
    import torch

    before = torch.get_float32_matmul_precision()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_encoder(encoder: keras.Model, policy: str) -> None:
    """Refuses an encoder that was made in another precision.

    Raises:
        ValueError: if none of its layers with weights has the policy.
    """
    found = sorted({layer.dtype_policy.name for layer in owners(encoder)})
    if found and policy not in found:
        raise ValueError(
            f"The precision is {policy}, and the encoder {encoder.name!r} was "
            f"built in {', '.join(found)}. Call "
            f"`keras.config.set_dtype_policy({policy!r})` before building it, "
            "or leave out `precision`."
        )


def check_device(model: keras.Model) -> None:
    """Refuses a model whose precision the device can't compute in.

    Raises:
        ValueError: if it has attention in float16 on a CPU under JAX.
    """
    found = environment()
    if found["backend"] != "jax" or "cpu" not in found["device"]:
        return
    for layer in all_layers(model):
        if (
            isinstance(layer, keras.layers.MultiHeadAttention)
            and layer.compute_dtype == "float16"
        ):
            raise ValueError(
                "JAX has no attention in float16 on CPUs, and "
                f"{type(model).__name__} has the attention layer "
                f"{layer.name!r}. Choose the precision float32 or "
                "mixed_bfloat16."
            )
