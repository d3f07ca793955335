"""What the device can compute in, and what is refused."""

from types import SimpleNamespace

import keras
import pytest

import kerassl
from kerassl.training import precision
from tests.contracts.methods import tiny_encoder

BACKEND = keras.config.backend()
SHAPE = dict(image_shape=(28, 28, 1), steps=4)


def pretend(monkeypatch, device, capability):
    """Makes the backend say that it has a GPU."""
    monkeypatch.setattr(precision, "environment", lambda: {"device": device})
    if BACKEND == "torch":
        import torch

        name, found = "is_bf16_supported", capability >= (8, 0)
        monkeypatch.setattr(torch.cuda, name, lambda including_emulation: found)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        details = {"compute_capability": capability}
        for of, name, result in (
            (tf.config, "list_physical_devices", ["GPU:0"]),
            (tf.config.experimental, "get_device_details", details),
        ):
            monkeypatch.setattr(of, name, lambda _, result=result: result)
    else:
        import jax

        gpu = SimpleNamespace(compute_capability="%d.%d" % capability)
        monkeypatch.setattr(jax, "local_devices", lambda: [gpu])


@pytest.mark.parametrize(
    "device, capability, expected",
    [
        ("cuda:0", (9, 0), "mixed_bfloat16"),
        ("cuda:0", (8, 0), "mixed_bfloat16"),
        ("cuda:0", (7, 5), "float32"),
        ("tpu_0(process=0,(0,0,0,0))", (0, 0), "mixed_bfloat16"),
        ("cpu", (9, 0), "float32"),
        ("mps:0", (9, 0), "float32"),
    ],
)
def test_auto(monkeypatch, device, capability, expected):
    pretend(monkeypatch, device, capability)
    assert precision.best() == expected


@pytest.mark.skipif(BACKEND != "jax", reason="others say it otherwise")
def test_a_gpu_without_a_version_has_none(monkeypatch):
    import jax

    gpu = SimpleNamespace(compute_capability="gfx90a")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    monkeypatch.setattr(precision, "environment", lambda: {"device": "rocm:0"})
    assert precision.best() == "float32"


def test_a_recipe_has_a_precision_and_the_process_keeps_its_own():
    model = kerassl.SimCLR.from_recipe(precision="mixed_bfloat16", **SHAPE)
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert model.recipe.to_dict()["precision"] == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    # Without one it is the global policy.
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kerassl.SimCLR.from_recipe(**SHAPE)
    assert model.dtype_policy.name == "mixed_bfloat16"
    model = kerassl.SimCLR.from_recipe(precision="auto", **SHAPE)
    assert model.recipe.precision == model.dtype_policy.name == precision.best()
    assert "precision" not in model.recipe.to_dict()  # As it was before.
    with pytest.raises(ValueError, match="`mask_ratio`"):
        kerassl.MAE.from_recipe(
            precision="float32", method_args={"mask_ratio": 2}, **SHAPE
        )
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_an_encoder_of_another_precision_is_refused():
    with pytest.raises(ValueError, match="was built in float32.*or leave out"):
        kerassl.SimCLR.from_recipe(
            encoder=tiny_encoder(), steps=4, precision="mixed_bfloat16"
        )


@pytest.mark.skipif(BACKEND != "jax", reason="others can")
@pytest.mark.skipif(
    "cpu" not in precision.environment()["device"], reason="CPU"
)
def test_float16_attention_is_refused_where_jax_has_none():
    with pytest.raises(ValueError, match="MAE has the attention layer"):
        kerassl.MAE.from_recipe(precision="mixed_float16", **SHAPE)
    kerassl.SimCLR.from_recipe(precision="mixed_float16", **SHAPE)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's setting")
def test_tf32_is_only_for_the_run(monkeypatch):
    import torch

    get = torch.get_float32_matmul_precision
    with precision.tensor_float32():
        assert get() == "high" if torch.cuda.is_available() else "highest"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with precision.tensor_float32():
        assert get() == "high"
    assert get() == "highest"
