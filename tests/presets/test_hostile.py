"""Presets made to harm: each is refused, with the cause, by both readers."""

import contextlib
import json
import os
import re
import shutil
import struct
import sys
import tracemalloc
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import kerassl
from kerassl.presets import PresetError
from kerassl.presets.format import hdf5
from tests.presets import make

WEIGHTS = "model.weights.h5"
CONV = "layers/conv2d/vars/0"
_opened: list[str] | None = None


def _watch(event, arguments):
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_watch)  # It can't be removed again.


@contextlib.contextmanager
def opened():
    """Records the paths of all files that are opened."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for name, encoder in (
        ("graph", make.graph_encoder()),
        ("vit", make.vit_encoder()),
        ("resnet", make.resnet_encoder()),
    ):
        kerassl.save_preset(encoder, folder / name)
    return folder


@pytest.fixture
def preset(originals, tmp_path, request):
    kind = getattr(request, "param", "graph")
    return Path(shutil.copytree(originals / kind, tmp_path / "preset"))


def refused(folder, message, weights_unread=True):
    """Both readers refuse it, with the message."""
    for read in (kerassl.verify_preset, kerassl.load_encoder):
        with opened() as paths, pytest.raises(PresetError) as caught:
            read(folder)
        assert re.search(message, str(caught.value)), str(caught.value)
        if weights_unread:
            assert not [p for p in paths if p.endswith(".h5")]


def edit(folder, name, change):
    """Changes a JSON file, and makes the hashes fit again."""
    path = folder / name
    content = json.loads(path.read_text())
    content = change(content) or content
    path.write_text(json.dumps(content))
    make.reseal(folder)


def layer_of(config, name):
    return next(x for x in config["config"]["layers"] if x["name"] == name)


# Classes and code


def as_lambda(config):
    layer = layer_of(config, "gelu")
    layer["class_name"] = "Lambda"
    layer["config"] = {
        "name": "gelu",
        "function": {"class_name": "__lambda__", "config": {"code": "4wE="}},
    }


def as_registered(config):
    layer_of(config, "gelu")["registered_name"] = "Evil>Layer"


def as_other_module(config):
    layer_of(config, "gelu")["module"] = "os"


def as_src_module(config):
    layer_of(config, "gelu")["module"] = "keras.layersystem"


def as_activation(config):
    layer_of(config, "gelu")["config"]["activation"] = {
        "module": "builtins",
        "class_name": "function",
        "config": "eval",
        "registered_name": "function",
    }


def as_initializer(config):
    layer_of(config, "conv")["config"]["kernel_initializer"] = {
        "module": "os",
        "class_name": "system",
        "config": {"command": "true"},
        "registered_name": None,
    }


def as_argument(config):
    layer_of(config, "conv")["config"]["strides"] = {"class_name": "x"}


def as_dtype(config):
    layer_of(config, "conv")["config"]["dtype"] = {
        "module": "os",
        "class_name": "DTypePolicy",
        "config": {"name": "float32"},
        "registered_name": None,
    }


def as_regularizer(config):
    layer_of(config, "conv")["config"]["kernel_regularizer"] = "l2"


def as_call_argument(config):
    node = layer_of(config, "gelu")["inbound_nodes"][0]
    node["kwargs"] = {"training": {"class_name": "__lambda__"}}


def as_build_config(config):
    layer_of(config, "conv")["build_config"] = {"input_shape": [1]}


def as_compile_config(config):
    config["compile_config"] = {"optimizer": "sgd"}


def as_whole(config):
    config["class_name"], config["registered_name"] = "Evil", "Evil>Evil"


def as_hub(config):
    config["module"] = "keras_hub.models"
    config["class_name"] = "ViTBackbone"
    config["registered_name"] = "keras_hub>ViTBackbone"


@pytest.mark.parametrize(
    "change, message",
    [
        (as_lambda, "names the class 'Lambda'"),
        (as_registered, "registered as 'Evil>Layer'"),
        (as_other_module, "module 'os'"),
        (as_src_module, "module 'keras.layersystem'"),
        (as_activation, "activation=.*builtins"),
        (as_initializer, "kernel_initializer=.*'os'"),
        (as_argument, "strides=.*class_name"),
        (as_dtype, "dtype=.*'os'"),
        (as_regularizer, "kernel_regularizer='l2'"),
        (as_call_argument, "called with arguments .*__lambda__"),
        (as_build_config, "unknown entries.*build_config"),
        (as_compile_config, "unknown entries.*compile_config"),
        (as_whole, "class 'Evil', registered as 'Evil>Evil'"),
        (as_hub, "module 'keras_hub.models'"),
    ],
)
def test_other_classes_in_the_config(preset, change, message):
    edit(preset, "config.json", change)
    refused(preset, message)


@pytest.mark.parametrize("preset", ["vit"], indirect=True)
@pytest.mark.parametrize(
    "key, value, message",
    [
        ("class_name", "Lambda", "class 'Lambda'"),
        ("module", "os", "module 'os'"),
        ("registered_name", "Evil>Evil", "registered as 'Evil>Evil'"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "image_converter.json"])
def test_other_classes_beside_a_backbone(preset, name, key, value, message):
    edit(preset, name, lambda content: content.update({key: value}))
    refused(preset, message)


@pytest.mark.parametrize("preset", ["vit"], indirect=True)
@pytest.mark.parametrize(
    "entry, message",
    [
        ({"image_size": [10**6, 10**6]}, "image_size=.*1000000"),
        ({"scale": [2.0, 2.0, 2.0]}, "scale="),
        ({"interpolation": {"class_name": "x"}}, "interpolation="),
        ({"evil": 1}, "evil=1"),
        ({"dtype": "float64"}, "dtype='float64'"),
    ],
)
def test_other_entries_in_the_image_converter(preset, entry, message):
    edit(preset, "image_converter.json", lambda c: c["config"].update(entry))
    refused(preset, message)


# Sizes


def with_config(name, **entries):
    return lambda config: layer_of(config, name)["config"].update(entries)


def many_layers(config):
    config["config"]["layers"] *= 500


@pytest.mark.parametrize(
    "change, message",
    [
        (with_config("conv", filters=10**12), "filters=1000000000000"),
        (with_config("conv", filters=65536), "doesn't fit|bytes|parameters"),
        (with_config("dense", units=65536), "`parameters`"),
        (with_config("dense", units=-1), "units=-1, which must be an integer"),
        (with_config("conv", kernel_size=[60000, 60000]), "doesn't fit|param"),
        (with_config("conv", filters=float("1e400")), "Infinity"),
        (with_config("conv", filters=None), "filters=None, which must be"),
        (with_config("conv", padding="x" * 10_000), "padding="),
        (with_config("conv", strides=[1] * 1000), "strides="),
        (many_layers, "2 to 4096 layers"),
    ],
)
def test_oversized_arguments(preset, change, message):
    edit(preset, "config.json", change)
    refused(preset, message)


def test_oversized_outputs(preset):
    def change(config):
        layer = layer_of(config, "gelu")
        layer["class_name"] = "ZeroPadding2D"
        fields = layer["config"]
        fields.pop("activation")
        fields.update(padding=[[60000, 0], [60000, 0]])

    edit(preset, "config.json", change)
    refused(preset, "'gelu' is too large")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(evil=1), "must have the entries .*Found: .*evil"),
        (dict(keras_version=7), "malformed. Found: .*'keras_version': 7"),
    ],
)
def test_metadata_that_were_changed(preset, change, message):
    edit(preset, "metadata.json", lambda metadata: metadata.update(change))
    refused(preset, message)


def test_parameters_that_the_file_can_not_hold(preset):
    edit(preset, "config.json", with_config("dense", units=4096))
    info = json.loads((preset / "kerassl.json").read_text())
    more = 4092 * 9
    parameters = info["parameters"] + more
    edit(
        preset,
        "metadata.json",
        lambda metadata: metadata.update(parameter_count=parameters),
    )
    make.reseal(preset, features=4096, parameters=parameters)
    refused(preset, "weights of .* bytes")


@pytest.mark.parametrize("preset", ["vit"], indirect=True)
@pytest.mark.parametrize(
    "entry, message",
    [
        ({"num_layers": 10**9}, "num_layers=1000000000"),
        ({"num_layers": 200}, "`parameters`"),
        ({"hidden_dim": 10**9}, "hidden_dim=1000000000"),
        ({"num_heads": 3}, "heads don't divide"),
        ({"patch_size": [3, 4]}, "can't be cut"),
        ({"image_shape": [None, None, 3]}, "image_shape="),
        ({"image_shape": [8192, 8192, 3]}, "`image_shape`"),
        ({"dropout_rate": 0.1}, "dropout_rate="),
        ({"evil": 1}, "must have the arguments"),
        ({"dtype": "float16"}, "dtype must be float32"),
        ({"use_class_token": 1}, "use_class_token=1"),
    ],
)
def test_arguments_of_a_vit(preset, entry, message):
    edit(preset, "config.json", lambda c: c["config"].update(entry))
    refused(preset, message)


@pytest.mark.parametrize("preset", ["resnet"], indirect=True)
@pytest.mark.parametrize(
    "entry, message",
    [
        ({"stackwise_num_blocks": [10**9, 2]}, "stackwise_num_blocks="),
        ({"stackwise_num_blocks": [2]}, "differ in length"),
        ({"stackwise_num_filters": [64] * 99}, "stackwise_num_filters="),
        ({"block_type": "evil"}, "block_type='evil'"),
        ({"input_conv_kernel_sizes": [10**6]}, "input_conv_kernel_sizes="),
        ({"input_conv_filters": [32]}, "must start with 64"),
        ({"stackwise_num_strides": [0, 1]}, "stackwise_num_strides="),
    ],
)
def test_arguments_of_a_resnet(preset, entry, message):
    edit(preset, "config.json", lambda c: c["config"].update(entry))
    refused(preset, message)


# The graph


def shared(config):
    layer_of(config, "gelu")["inbound_nodes"] *= 2


def cyclic(config):
    tensor = layer_of(config, "conv")["inbound_nodes"][0]["args"][0]
    tensor["config"]["keras_history"][0] = "dense"


def dangling(config):
    config["config"]["output_layers"] = [["nowhere", 0, 0]]


def twice(config):
    layer = layer_of(config, "gelu")
    layer["name"] = layer["config"]["name"] = "conv"


def as_path(config):
    layer = layer_of(config, "gelu")
    layer["name"] = layer["config"]["name"] = "../../etc/passwd"


@pytest.mark.parametrize(
    "change, message",
    [
        (shared, "'gelu' must be called once"),
        (cyclic, "'conv' must be called once, on layers listed before"),
        (dangling, "`output_layers`"),
        (twice, "'conv' isn't unique"),
        (as_path, "is not a valid layer name"),
    ],
)
def test_graphs(preset, change, message):
    edit(preset, "config.json", change)
    refused(preset, message)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 200_000, "not plain JSON"),
        ('{"a": NaN}', "NaN"),
        ("\xff\xfe", "not plain JSON|instead of Functional|module"),
        ("[]", "Expected a Functional"),
        ("null", "Expected a Functional"),
    ],
)
def test_other_json(preset, text, message):
    (preset / "config.json").write_bytes(text.encode("latin-1"))
    make.reseal(preset)
    refused(preset, message)


def test_numbers_of_many_digits(preset):
    text = (preset / "kerassl.json").read_text()
    text = text.replace('"features": 4', f'"features": {"9" * 400}')
    (preset / "kerassl.json").write_text(text)
    refused(preset, "the number '999.* is too large")


@pytest.mark.parametrize("digits", [1, 400, 5000])
@pytest.mark.parametrize("field", ["scores", "training"])
def test_numbers_in_free_fields(preset, field, digits):
    """A number of any size is refused, or kept as it is."""
    text = json.loads((preset / "kerassl.json").read_text())
    text[field] = {"knn": {"k": "X"}}
    text = json.dumps(text).replace('"X"', "9" * digits)
    (preset / "kerassl.json").write_text(text)
    if digits == 1:
        assert kerassl.verify_preset(preset).to_dict()[field]["knn"]["k"] == 9
    else:
        refused(preset, "is too large")


def test_a_key_that_is_there_twice(preset):
    text = (preset / "config.json").read_text()
    text = text.replace('"module"', '"module": "os", "module"', 1)
    (preset / "config.json").write_text(text)
    make.reseal(preset)
    refused(preset, "'module' is there twice")


def test_deep_json(preset):
    edit(preset, "metadata.json", lambda m: m.update(tasks=deep(420)))
    refused(preset, "422 levels deep")


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [[], {}, 0, None, "nowhere", ["conv"]])
def test_histories(preset, value):
    def change(config):
        tensor = layer_of(config, "gelu")["inbound_nodes"][0]["args"][0]
        tensor["config"]["keras_history"][0] = value

    edit(preset, "config.json", change)
    refused(preset, "'gelu' must be called once")


@pytest.mark.parametrize(
    "module", ["keras.layers.os.system", "keras.os", "keras.layers."]
)
def test_modules(preset, module):
    edit(
        preset,
        "config.json",
        lambda config: layer_of(config, "gelu").update(module=module),
    )
    refused(preset, f"module '{re.escape(module)}'")


def with_initializer(**entries):
    def change(config):
        fields = layer_of(config, "conv")["config"]
        fields["kernel_initializer"]["class_name"] = "RandomNormal"
        fields["kernel_initializer"]["config"] = entries

    return change


def with_images(config):
    """A layer that has the name of the encoder's input."""
    layer = layer_of(config, "gelu")
    layer["name"] = layer["config"]["name"] = "images"
    for name in ("dropout", "dense"):
        for other in config["config"]["layers"]:
            if other["name"] == name:
                tensor = other["inbound_nodes"][0]["args"][0]
                tensor["config"]["keras_history"][0] = "images"
    config["config"]["layers"][0]["name"] = "x"
    config["config"]["layers"][0]["config"]["name"] = "x"
    tensor = layer_of(config, "normalization")["inbound_nodes"][0]["args"][0]
    tensor["config"]["keras_history"][0] = "x"
    config["config"]["input_layers"] = [["x", 0, 0]]


@pytest.mark.parametrize(
    "change, message",
    [
        (with_config("conv", lora_rank=4), "lora_rank=4"),
        (with_config("normalization", scale="x"), "scale='x'"),
        (with_config("normalization", scale=[1.0] * 9), "needs one `scale`"),
        (with_initializer(stddev="x"), "kernel_initializer="),
        (with_initializer(evil=1), "kernel_initializer="),
        (with_config("conv", evil=1), "evil=1"),
        (with_config("norm", epsilon="x"), "epsilon='x'"),
        (with_config("norm", axis=-1.0), "axis=-1.0"),
        (with_images, "can't build"),
    ],
)
def test_what_keras_can_not_build(preset, change, message):
    """Both readers refuse it: what is verified loads."""
    edit(preset, "config.json", change)
    refused(preset, message, weights_unread=False)


def test_two_normalizations(preset):
    numbers = {"scale": [1.0] * 3, "offset": [0.0] * 3}
    make.reseal(preset, normalization=numbers)
    refused(preset, "`normalization` must be null")


@pytest.mark.parametrize("count, message", [(860, "more than 850"), (800, "")])
def test_many_layers(preset, count, message):
    """Keras can't build 1,000 layers, one after the other."""

    def change(config):
        fields = config["config"]
        last = layer_of(config, "dense")
        for i in range(count):
            layer = json.loads(json.dumps(layer_of(config, "gelu")))
            layer["name"] = layer["config"]["name"] = f"more_{i}"
            tensor = layer["inbound_nodes"][0]["args"][0]
            tensor["config"]["keras_history"][0] = last["name"]
            fields["layers"].append(layer)
            last = layer
        fields["output_layers"] = [[last["name"], 0, 0]]

    edit(preset, "config.json", change)
    if message:
        with pytest.raises(PresetError, match=message):
            kerassl.verify_preset(preset)
    else:
        kerassl.load_encoder(preset)


@pytest.mark.parametrize(
    "unit", ["[],", '{"":0},', "0.5,", '"",', '"\\u0000\\u0000",']
)
def test_memory_for_json(preset, unit, monkeypatch):
    """16 MB of JSON are refused at once, before they are parsed."""
    text = '{"module": [' + unit * (15_000_000 // len(unit)) + "0]}"
    (preset / "config.json").write_text(text)
    make.reseal(preset)
    loads = json.loads

    def load_small(text, **arguments):
        assert len(text) < 1e6
        return loads(text, **arguments)

    monkeypatch.setattr(json, "loads", load_small)
    tracemalloc.start()
    try:
        with pytest.raises(PresetError, match="the most"):
            kerassl.verify_preset(preset)
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()


EVIL = "\x1b]0;evil\x07\x9b31m\u202e\nkerassl: fine"


@pytest.mark.parametrize(
    "place", ["field", "argument", "entry", "class", "version"]
)
def test_errors_are_one_line_without_control_characters(preset, place):
    if place == "field":
        make.reseal(preset, **{EVIL: 1})
    elif place == "version":
        make.reseal(preset, versions={"keras": EVIL})
    else:
        change = {
            "argument": with_config("conv", **{EVIL: EVIL}),
            "entry": lambda c: layer_of(c, "conv").update({EVIL: 1}),
            "class": lambda c: c.update(class_name=EVIL * 1000),
        }[place]
        edit(preset, "config.json", change)
    with pytest.raises(PresetError) as caught:
        kerassl.verify_preset(preset)
    assert str(caught.value).isprintable() and "evil" in str(caught.value)
    assert len(str(caught.value)) < 1500


# Files


@pytest.mark.parametrize("name", ["config.json", "metadata.json", WEIGHTS])
def test_a_changed_byte(preset, name):
    path = preset / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(
        preset,
        f"{name} was changed: its SHA-256",
        weights_unread=name != WEIGHTS,
    )


@pytest.mark.parametrize("listed", [True, False])
def test_an_edited_card_decides_nothing(preset, listed):
    if not listed:  # Nor does its entry.
        info = json.loads((preset / "kerassl.json").read_text())
        del info["files"]["README.md"]
        (preset / "kerassl.json").write_text(json.dumps(info))
    for text in (b"# Mine", b"\xff\x00", b""):
        (preset / "README.md").write_bytes(text)
        kerassl.verify_preset(preset)
    (preset / "README.md").write_bytes(b"x" * (4 * 1024**2 + 1))
    refused(preset, "README.md has .* bytes; .* is the limit")
    (preset / "README.md").unlink()
    kerassl.verify_preset(preset)


def test_another_length(preset):
    with (preset / WEIGHTS).open("ab") as file:
        file.write(b"x")
    refused(preset, f"{WEIGHTS} has .* bytes, and kerassl.json says")


@pytest.mark.parametrize(
    "name", ["config.json", "kerassl.json", "README.md", WEIGHTS]
)
def test_symbolic_links(preset, tmp_path, name):
    (preset / name).rename(tmp_path / "elsewhere")
    (preset / name).symlink_to(tmp_path / "elsewhere")
    refused(preset, f"{name} is a symbolic link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="No such files here")
def test_pipes(preset):
    (preset / WEIGHTS).unlink()
    os.mkfifo(preset / WEIGHTS)
    refused(preset, "not a regular file")


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "/etc/passwd", "a/../../b", "C:\\evil", "evil.py", ""],
)
def test_paths_in_the_list_of_files(preset, name):
    info = json.loads((preset / "kerassl.json").read_text())
    info["files"][name] = {"sha256": "0" * 64, "size": 0}
    (preset / "kerassl.json").write_text(json.dumps(info))
    refused(preset, "is not a file of a preset")


@pytest.mark.parametrize(
    "name", ["evil.py", "task.json", "tokenizer.json", "model.weights.npz"]
)
def test_other_files(preset, name):
    (preset / name).write_text("")
    refused(preset, f"holds '{name}'")


def test_other_folders(preset):
    (preset / "assets").mkdir()
    refused(preset, "holds 'assets'")


def test_a_file_that_is_not_listed(preset, originals):
    name = "image_converter.json"
    shutil.copy(originals / "vit" / name, preset / name)
    refused(preset, f"holds {name}, which kerassl.json doesn't name")


def test_a_missing_file(preset):
    (preset / "metadata.json").unlink()
    refused(preset, "lacks metadata.json")


def test_hidden_files_are_ignored(preset):
    (preset / ".gitattributes").write_text("*.h5 filter=lfs")
    (preset / ".git").mkdir()
    kerassl.load_encoder(preset)


def test_a_huge_file(preset):
    with (preset / "config.json").open("r+b") as file:
        file.truncate(2**40)
    refused(preset, "is the limit")


# kerassl.json


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"schema_version": 3}, "schema 3.*Upgrade"),
        ({"schema_version": "1"}, "`schema_version` must be"),
        ({"schema_version": True}, "`schema_version` must be"),
        ({"evil": 1}, "unknown fields: evil"),
        ({"class_name": "Evil"}, "`class_name` is 'Evil'"),
        ({"class_name": "ViTBackbone"}, "`files` must name"),
        ({"output": "tokens"}, "`output` is 'tokens'"),
        ({"output": []}, "`output` must be"),
        ({"features": 5}, "with 5 features"),
        ({"parameters": 5}, "`parameters` is 5"),
        ({"image_shape": [9, 9, 3]}, "`image_shape` is"),
        ({"image_shape": [8, 8, 10**9]}, "`image_shape` must be"),
        ({"architecture": "../evil"}, "`architecture` must be"),
        ({"normalization": {"scale": [1], "offset": [1]}}, "for each of the 3"),
        ({"recipe": {"a": 1}, "recipe_hash": "0" * 64}, "`recipe_hash` isn't"),
        ({"scores": {"knn": {"accuracy": 2}}}, "`scores` must be"),
        ({"versions": {"keras": "3.15; rm"}}, "`versions` must be"),
    ],
)
def test_fields(preset, fields, message):
    make.reseal(preset, **fields)
    refused(preset, message)


def test_a_missing_field(preset):
    info = json.loads((preset / "kerassl.json").read_text())
    del info["license"]
    (preset / "kerassl.json").write_text(json.dumps(info))
    refused(preset, "lacks license")


# Weights


@pytest.fixture
def weights(preset):
    """Opens the weights for changes, and makes the hashes fit after them."""

    @contextlib.contextmanager
    def change():
        with h5py.File(preset / WEIGHTS, "r+") as file:
            yield file
        make.reseal(preset)

    return change


def test_missing_weights(preset, weights):
    with weights() as file:
        del file[CONV]
    refused(preset, f"lacks 1 weights.*{CONV}", weights_unread=False)


def test_extra_weights(preset, weights):
    with weights() as file:
        file["layers/conv2d/vars/7"] = np.zeros(3, "float32")
    refused(preset, "vars/7' is not a weight", weights_unread=False)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((3, 3, 3, 9), "float32"), "has the shape"),
        (np.zeros((3, 3, 3, 8), "float64"), "dtype float64"),
        (np.zeros((3, 3, 3, 8), "int32"), "dtype int32"),
        (np.zeros((3, 3, 3, 8), ">f4"), "dtype >f4"),
        (np.full((3, 3, 3, 8), np.nan, "float32"), "NaN"),
        (np.full((3, 3, 3, 8), -np.inf, "float32"), "infinite"),
    ],
)
def test_other_weights(preset, weights, array, message):
    with weights() as file:
        del file[CONV]
        file[CONV] = array
    refused(preset, message, weights_unread=False)


@pytest.mark.parametrize("dtype", [h5py.string_dtype(), h5py.ref_dtype])
def test_objects(preset, weights, dtype):
    with weights() as file:
        del file[CONV]
        file.create_dataset(CONV, (3, 3, 3, 8), dtype=dtype)
    refused(preset, "dtype object", weights_unread=False)


@pytest.mark.parametrize(
    "link, message",
    [
        (h5py.ExternalLink("/etc/other.h5", "/a"), "ExternalLink.*other.h5"),
        (h5py.SoftLink("/layers/dense/vars/0"), "SoftLink.*dense"),
    ],
)
def test_links(preset, weights, link, message):
    with weights() as file:
        del file[CONV]
        file[CONV] = link
    refused(preset, message, weights_unread=False)


def test_an_external_link_of_a_group(preset, weights):
    with weights() as file:
        del file["layers/conv2d"]
        file["layers/conv2d"] = h5py.ExternalLink("/etc/other.h5", "/")
    with opened() as paths:
        refused(preset, "ExternalLink", weights_unread=False)
    assert not [p for p in paths if "other.h5" in p]


def test_cycles(preset, weights):
    with weights() as file:
        file["layers/conv2d/again"] = file["layers"]
    refused(preset, "linked twice", weights_unread=False)


def test_two_names_of_one_weight(preset, weights):
    with weights() as file:
        del file["layers/batch_normalization/vars/1"]
        file["layers/batch_normalization/vars/1"] = file[
            "layers/batch_normalization/vars/0"
        ]
    refused(preset, "linked twice", weights_unread=False)


def address_of(data, file, place):
    """Where the address of an array is written in a file's bytes."""
    offset, size = file[place].id.get_offset(), file[place].nbytes
    return data.index(struct.pack("<2Q", offset, size))


def test_weights_on_the_same_bytes(preset):
    path = preset / WEIGHTS
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        vars = "layers/batch_normalization/vars"
        first = file[f"{vars}/0"].id.get_offset()
        at = address_of(data, file, f"{vars}/1")
    struct.pack_into("<Q", data, at, first + 4)
    path.write_bytes(data)
    make.reseal(preset)
    refused(preset, "shares bytes", weights_unread=False)


def test_weights_are_those_that_h5py_reads(preset):
    data = (preset / WEIGHTS).read_bytes()
    found = hdf5.read_arrays(data, 1000)
    expected = {}
    with h5py.File(preset / WEIGHTS) as file:
        file.visititems(
            lambda name, item: (
                expected.update({name: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert list(sorted(found)) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_virtual_data_sets(preset, weights):
    with weights() as file:
        del file[CONV]
        layout = h5py.VirtualLayout((3, 3, 3, 8), "float32")
        layout[:] = h5py.VirtualSource("/etc/other.h5", "a", (3, 3, 3, 8))
        file.create_virtual_dataset(CONV, layout)
    refused(preset, "virtual data set", weights_unread=False)


def test_external_storage(preset, weights, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 * 216))
    with weights() as file:
        del file[CONV]
        file.create_dataset(
            CONV,
            (3, 3, 3, 8),
            "float32",
            external=[(str(secret), 0, 4 * 216)],
        )
    with opened() as paths:
        refused(preset, "external storage", weights_unread=False)
    assert str(secret) not in paths


@pytest.mark.parametrize(
    "options", [{"compression": "gzip"}, {"chunks": True}, {}]
)
def test_other_storage(preset, weights, options):
    with weights() as file:
        del file[CONV]
        item = file.create_dataset(CONV, (3, 3, 3, 8), "float32", **options)
        if options:
            item[:] = 0
    refused(preset, "isn't stored as plain numbers", weights_unread=False)


@pytest.mark.parametrize("kind", ["datatype", "groups"])
def test_other_objects(preset, weights, kind):
    with weights() as file:
        if kind == "datatype":
            file["evil"] = np.dtype("float64")
        else:
            for i in range(1000):
                file.create_group(f"evil/{i}")
    refused(preset, "not an array|more than", weights_unread=False)


def test_no_hdf5(preset):
    size = (preset / WEIGHTS).stat().st_size
    (preset / WEIGHTS).write_bytes(bytes(size))
    make.reseal(preset)
    refused(preset, "not an HDF5 file", weights_unread=False)


def test_a_cut_hdf5(preset):
    data = (preset / WEIGHTS).read_bytes()
    (preset / WEIGHTS).write_bytes(data[: len(data) // 2])
    make.reseal(preset)
    refused(preset, "not an HDF5 file|bytes", weights_unread=False)


def test_nothing_of_it_is_imported(preset, tmp_path, monkeypatch):
    """The module that a class names isn't even looked for."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    edit(
        preset,
        "config.json",
        lambda c: layer_of(c, "gelu").update(module="evil_module"),
    )
    refused(preset, "module 'evil_module'")
    assert "evil_module" not in sys.modules


def test_registered_classes_are_not_made(preset):
    """KerasHub and Keras build any registered class; kerassl doesn't."""

    class Evil(keras.layers.Layer):
        def __init__(self, **kwargs):
            raise SystemExit

    def change(config):
        layer = layer_of(config, "gelu")
        layer.update(
            module=None, class_name="Evil", registered_name="evil>Evil"
        )

    edit(preset, "config.json", change)
    with keras.saving.CustomObjectScope({"evil>Evil": Evil, "Evil": Evil}):
        refused(preset, "names the class 'Evil'")
