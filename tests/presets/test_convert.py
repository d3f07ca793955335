import argparse
import hashlib
import os
import sys
import zipfile

import keras
import numpy as np
import pytest

import kerassl
from kerassl import encoders, presets
from kerassl.layers import bicubic_matrix
from kerassl.presets.convert import SOURCES, convert_checkpoint
from kerassl.presets.format.positions import dino_bicubic
from tests.memory import memory_limit
from tests.presets import make

torch = pytest.importorskip("torch")
torch_models = pytest.importorskip("tests.presets.torch_models")

HEADS = 3
NC, MIT, APACHE = "cc-by-nc-4.0", "mit", "apache-2.0"


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def junk(*keys):
    return {key: torch.ones(2) for key in keys}


def moco(state, head=("fc.0.weight", "fc.2.bias")):
    """As MoCo saves it: a second network, a queue and an optimizer."""
    state = {
        **under("module.encoder_q.", state),
        **junk(*(f"module.encoder_q.{key}" for key in head)),
        **under("module.encoder_k.", {k: v + 1 for k, v in state.items()}),
        **junk("module.queue", "module.queue_ptr"),
    }
    optimizer = {"state": {}, "param_groups": [{"lr": 0.03, "params": [0]}]}
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": state,
        "optimizer": optimizer,
    }


def dino(state):
    """DINO's full checkpoint: the teacher beside the student, and settings."""
    student = {k: v + 1 for k, v in state.items()}
    return {
        "student": under("module.backbone.", student),
        "teacher": under("backbone.", state) | junk("head.mlp.0.weight"),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", output_dir="."),
    }


# How each source lies in its file, and its license.
FILES = {
    "moco_v1_resnet50": (
        lambda state: moco(state, ("fc.weight", "fc.bias")),
        NC,
    ),
    "moco_v2_resnet50": (moco, NC),
    "simsiam_resnet50": (
        lambda state: {
            "state_dict": under("module.encoder.", state)
            | junk("module.encoder.fc.0.weight", "module.predictor.0.weight")
        },
        NC,
    ),
    "swav_resnet50": (
        lambda state: (
            under("module.", state)
            | junk(
                "module.projection_head.0.weight", "module.prototypes.weight"
            )
        ),
        NC,
    ),
    "barlow_twins_resnet50": (lambda state: state, MIT),
    "vicreg_resnet50": (
        lambda state: {
            "model": under("module.backbone.", state)
            | junk("module.projector.0.weight")
        },
        MIT,
    ),
    "dino_resnet50": (lambda state: state, APACHE),
    "dino_vit": (dino, APACHE),
    "dino_vit_transformers": (lambda state: state, APACHE),
    "ibot_vit": (
        lambda state: {
            "student": junk("module.backbone.masked_embed"),
            "teacher": under("backbone.", state)
            | junk("head.mlp.0.weight", "head.last_layer2.weight_g"),
        },
        APACHE,
    ),
    "mae_vit": (
        lambda state: {
            "model": state
            | junk(
                "mask_token", "decoder_blocks.0.norm1.weight", "decoder_embed"
            )
        },
        NC,
    ),
    "mae_vit_transformers": (
        lambda state: under("vit.", state) | junk("decoder.mask_token"),
        NC,
    ),
    "moco_v3_resnet50": (
        lambda state: {
            "state_dict": under("module.base_encoder.", state)
            | junk(
                "module.base_encoder.fc.0.weight",
                "module.base_encoder.fc.4.running_var",
                "module.predictor.1.bias",
            )
            | under("module.momentum_encoder.", state)
        },
        NC,
    ),
    "moco_v3_vit": (
        lambda state: {
            "state_dict": under("module.base_encoder.", state)
            | junk(
                "module.base_encoder.head.0.weight", "module.predictor.1.bias"
            )
            | under("module.momentum_encoder.", state)
        },
        NC,
    ),
}


@pytest.fixture(scope="module")
def models():
    kinds = {
        "resnet50": torch_models.ResNet,
        "vit": torch_models.ViT,
        "transformers": torch_models.ViTMAE,
    }
    return {
        name: torch_models.randomized(kind()) for name, kind in kinds.items()
    }


def heads(source):
    return None if source.endswith("resnet50") else HEADS


@pytest.fixture(scope="module")
def saved(models, tmp_path_factory):
    """Saves a checkpoint, changed before if asked for."""

    def save(source, change=lambda state: None, name="checkpoint.pth"):
        state = dict(models[source.rpartition("_")[-1]].state_dict())
        change(state)
        path = tmp_path_factory.mktemp(source) / name
        torch.save(FILES[source][0](state), path)
        return path

    return save


def test_licenses_are_the_originals():
    found = {
        name: source.license
        for name, source in SOURCES.items()
        if not source.stated and name != "dinov2_vit"
    }
    assert found == {name: license for name, (_, license) in FILES.items()}


# By which the authors divide; SwAV's has another first digit than ImageNet's.
STDS = {"swav_resnet50": (0.228, 0.224, 0.225)}


def check_features(
    encoder, model, std=(0.229, 0.224, 0.225), mean=(0.485, 0.456, 0.406)
):
    """Compares an encoder's features with those of the torch model."""
    images = make.images_for(encoder.input_shape[1:])
    expected = torch_models.features(model, images, std, mean)
    found = keras.ops.convert_to_numpy(encoder(images, training=False))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", FILES)
def test_encoder_is_the_originals(source, models, saved, monkeypatch):
    made = []
    monkeypatch.setattr(
        presets.convert, "save_preset", lambda *args, **_: made.append(args)
    )
    convert_checkpoint(saved(source), source, "p", num_heads=heads(source))
    encoder, _ = made[0]
    if heads(source) is None:
        assert encoder.input_shape == (None, 224, 224, 3)
        encoder = encoders.at_size(encoder, 40)
    model = models[source.rpartition("_")[-1]]
    check_features(encoder, model, STDS.get(source, (0.229, 0.224, 0.225)))


def test_the_normalization_is_the_authors(models, saved, monkeypatch):
    """Features hardly show a thousandth."""
    made = []
    monkeypatch.setattr(
        presets.convert, "save_preset", lambda *args, **_: made.append(args)
    )
    for source in ("swav_resnet50", "moco_v1_resnet50"):
        convert_checkpoint(saved(source), source, "p")
        layer = made[-1][0].get_layer("normalization")
        std = STDS.get(source, (0.229, 0.224, 0.225))
        mean = (0.485, 0.456, 0.406)
        np.testing.assert_allclose(layer.scale, [1 / 255 / s for s in std])
        np.testing.assert_allclose(
            layer.offset, [-m / s for m, s in zip(mean, std)]
        )


# === Layouts ===


def lightly(state):
    """As lightly's models have it, whose backbone is a Sequential."""
    places = {"conv1": "0", "bn1": "1"} | {
        f"layer{i}": str(3 + i) for i in range(1, 5)
    }
    renamed = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        renamed[f"backbone.{places[first]}.{rest}"] = value
    return {"state_dict": renamed | junk("projection_head.layers.0.weight")}


def solo(state):
    """solo-learn's, with the classifier that it trains along."""
    others = junk("classifier.weight", "projector.0.weight", "queue")
    momentum = under("momentum_backbone.", state)
    return {"state_dict": under("backbone.", state) | others | momentum}


LAYOUTS = {
    "torchvision_resnet": lambda state: state | junk("fc.weight", "fc.bias"),
    "timm_vit": lambda state: state | junk("head.weight", "head.bias"),
    "solo_learn_resnet": solo,
    "solo_learn_vit": solo,
    "lightly_resnet": lightly,
}
MEAN, STD = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
STATED = dict(name="theirs", mean=MEAN, std=STD, license=MIT)


def test_all_layouts_are_tested():
    assert {*FILES, *LAYOUTS} == set(SOURCES) - {"dinov2_vit"}


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("kind", ["BasicBlock", "Bottleneck"])
def test_a_layout_gives_what_is_stated(source, kind, models, tmp_path):
    if source.endswith("vit"):
        if kind == "BasicBlock":
            pytest.skip("of a ResNet")
        model = models["vit"]
    else:
        model = torch_models.randomized(
            torch_models.ResNet(kind=getattr(torch_models, kind))
        )
    path = tmp_path / "model.pth"
    torch.save(LAYOUTS[source](dict(model.state_dict())), path)
    # As arrays, or as in STATED.
    numbers = {"mean": np.asarray(MEAN), "std": np.asarray(STD)}
    numbers = numbers if kind == "BasicBlock" else {}
    arguments = dict(STATED, datasets=["cifar10"]) | numbers
    if source.endswith("vit"):
        arguments["num_heads"] = HEADS
    folder = convert_checkpoint(path, source, tmp_path / "p", **arguments)
    info = kerassl.verify_preset(folder)
    assert (info.name, info.license) == ("theirs", MIT)
    assert info.datasets == ("cifar10",)
    # A classifier must not pass for DINO, whose positions have their own rule.
    assert "method" not in info.training and info.method is None
    shape = (40, 40, 3) if source.endswith("resnet") else (12, 12, 3)
    check_features(
        kerassl.load_encoder(folder, image_shape=shape), model, STD, MEAN
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(name=None, std=None), "Give name, std"),
        (dict(license=None), "Give license"),
        (dict(mean=(124, 116, 104)), "3 numbers in"),
    ],
)
def test_what_a_layout_needs_is_asked_for(change, message, models, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(models["vit"].state_dict(), path)
    with pytest.raises(presets.PresetError, match=message):
        convert_checkpoint(
            path, "timm_vit", tmp_path / "p", num_heads=HEADS, **STATED | change
        )
    with pytest.raises(presets.PresetError, match="leave out license, mean"):
        convert_checkpoint(
            path, "dino_vit", tmp_path / "p", num_heads=HEADS, **STATED
        )


def test_a_stem_for_small_images_is_refused(models, tmp_path):
    state = dict(models["resnet50"].state_dict())
    state["conv1.weight"] = torch.ones(64, 3, 3, 3)
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with pytest.raises(presets.PresetError, match="small images.* is 3x3"):
        convert_checkpoint(path, "torchvision_resnet", tmp_path / "p", **STATED)


# === DINOv2 ===


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("gated", [False, True])
def test_dinov2(registers, gated, tmp_path):
    model = torch_models.randomized(
        torch_models.DINOv2(registers=registers, gated=gated)
    )
    path = tmp_path / "model.pth"
    torch.save(model.state_dict(), path)
    folder = convert_checkpoint(
        path, "dinov2_vit", tmp_path / "p", num_heads=HEADS
    )
    info = kerassl.verify_preset(folder)
    assert (info.architecture, info.output) == ("dinov2", "class_token")
    assert info.license == APACHE and info.datasets == ()
    check_features(kerassl.load_encoder(folder), model)
    # The authors' rule for positions at another size.
    encoder = kerassl.load_encoder(folder, image_shape=(20, 20, 3))
    layer = encoder.get_layer("backbone").embeddings
    found = keras.ops.convert_to_numpy(layer.interpolated_position_embeddings)
    grid = model.pos_embed.detach()[:, 1:].reshape(1, 3, 3, -1)
    how: dict = dict(scale_factor=5.1 / 3)
    if registers:
        how = dict(size=(5, 5), antialias=True)
    expected = torch.nn.functional.interpolate(
        grid.permute(0, 3, 1, 2), mode="bicubic", **how
    )
    expected = expected.permute(0, 2, 3, 1).reshape(25, -1)
    np.testing.assert_allclose(found[0, 1:], expected.numpy(), atol=1e-5)
    state = {**model.state_dict(), "head.weight": torch.ones(1000, 12)}
    torch.save(state, path)
    with pytest.raises(presets.PresetError, match="a classifier"):
        convert_checkpoint(path, "dinov2_vit", tmp_path / "q", num_heads=HEADS)


SIZES = [(14, 6), (14, 13), (14, 7), (14, 16), (14, 28), (28, 12), (3, 5)]


@pytest.mark.parametrize("old, new", SIZES)
def test_positions_at_other_sizes(old, new):
    """Against PyTorch's interpolation, of which timm and DINO make use."""
    interpolate = torch.nn.functional.interpolate
    grid = np.random.default_rng(0).normal(size=(1, 1, old, old))
    tensor = torch.tensor(grid)
    expected = interpolate(tensor, (new, new), mode="bicubic", antialias=True)
    matrix = bicubic_matrix(old, new)
    found = matrix @ grid[0, 0] @ matrix.T
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-6)
    scale = (new + 0.1) / old
    expected = interpolate(tensor, scale_factor=(scale, scale), mode="bicubic")
    matrix = dino_bicubic(old, new)
    found = matrix @ grid[0, 0] @ matrix.T
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-6)


@pytest.mark.parametrize(
    "source, matrix",
    [
        ("dino_vit", dino_bicubic),
        ("ibot_vit", dino_bicubic),
        ("mae_vit", bicubic_matrix),
    ],
)
def test_each_has_its_rule_for_positions(source, matrix, saved, tmp_path):
    folder = convert_checkpoint(
        saved(source), source, tmp_path / "p", num_heads=HEADS
    )

    def positions(**size):
        encoder = kerassl.load_encoder(folder, **size)
        (found,) = (w for w in encoder.weights if w.path.endswith("embeddings"))
        return keras.ops.convert_to_numpy(found)

    old, new = positions(), positions(image_shape=(8, 20, 3))
    np.testing.assert_array_equal(new[0], old[0])
    grid = old[1:].reshape(3, 3, -1)
    expected = np.einsum("ip,jq,pqd->ijd", matrix(3, 2), matrix(3, 5), grid)
    np.testing.assert_allclose(
        new[1:], expected.reshape(10, -1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "source, key",
    [
        ("dino_vit", "head.weight"),
        ("dino_vit", "backbone.head.weight"),
        ("dino_resnet50", "fc.weight"),
        ("dino_vit_transformers", "classifier.weight"),
        ("ibot_vit", "head.weight"),
        ("mae_vit", "head.weight"),
        ("mae_vit_transformers", "classifier.weight"),
        ("barlow_twins_resnet50", "fc.weight"),
    ],
)
def test_classifiers_are_refused(source, key, models, saved, tmp_path):
    state = dict(models[source.rpartition("_")[-1]].state_dict())
    if key.startswith("backbone."):
        state = under("backbone.", state)
    path = tmp_path / "model.pth"
    torch.save({**state, key: torch.ones(1000, 12)}, path)
    with pytest.raises(
        presets.PresetError, match=rf"a classifier, '{key}' of.*\(1000, 12\)"
    ):
        convert_checkpoint(
            path, source, tmp_path / "preset", num_heads=heads(source)
        )
    assert not (tmp_path / "preset").exists()


@pytest.mark.parametrize("source, other", [("1", "2"), ("2", "1")])
def test_versions_of_moco_are_told_apart(source, other, saved, tmp_path):
    path = saved(f"moco_v{other}_resnet50")
    with pytest.raises(presets.PresetError, match=r"encoder_q\.fc\."):
        convert_checkpoint(path, f"moco_v{source}_resnet50", tmp_path / "p")


@pytest.mark.parametrize("kind", ["stride", "shared", "huge", "packed"])
def test_few_bytes_stay_few(kind, models, tmp_path):
    """A small file whose tensors would be gigabytes."""
    one = torch.ones(1)

    def change(state):
        if kind == "stride":
            for name, value in state.items():
                state[name] = one.expand(value.shape)
            key = "blocks.0.mlp.fc1.weight"
            state[key] = one.expand(2**19, 2**12)
        elif kind == "shared":
            large = torch.ones(2**16)
            for name, value in state.items():
                if value.numel() < 2**16:
                    part = large[: value.numel()]
                    state[name] = part.reshape(value.shape)
            for i in range(900):
                state[f"blocks.{i}.mlp.fc1.bias"] = large
        elif kind == "huge":
            state["patch_embed.proj.weight"] = one.expand(2**13, 3, 2**12, 2**9)
        else:
            state["pad"] = torch.zeros(2**22)

    state, path = dict(models["vit"].state_dict()), tmp_path / "few.pth"
    change(state)
    torch.save(state, path)
    if kind == "packed":
        packed = tmp_path / "packed.pth"
        with (
            zipfile.ZipFile(path) as old,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for name in old.namelist():
                new.writestr(name, old.read(name))
        path = packed
    with (
        memory_limit(300e6),
        pytest.raises(presets.PresetError, match="bytes") as error,
    ):
        convert_checkpoint(path, "dino_vit", tmp_path / "p", num_heads=HEADS)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(1, 1, 12).to_sparse(),
        torch.ones(1, 1, 12, device="meta"),
        torch.ones(1, 1, 12, dtype=torch.complex64),
        argparse.Namespace(shape=(1, 1, 12)),
        [1.0] * 12,
    ],
)
def test_what_is_no_array_is_refused(value, models, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({**models["vit"].state_dict(), "cls_token": value}, path)
    with pytest.raises(presets.PresetError, match="cls_token"):
        convert_checkpoint(path, "dino_vit", tmp_path / "p", num_heads=HEADS)


def test_broken_safetensors_are_refused(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    for data in (b"", b"<html>", b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(presets.PresetError, match="can't be read"):
            convert_checkpoint(path, "mae_vit", tmp_path / "p", num_heads=3)


@pytest.mark.parametrize(
    "source, name, output, shape",
    [
        ("moco_v2_resnet50", "resnet_11", "map", (40, 40, 3)),
        ("dino_vit", "vit", "class_token", (12, 12, 3)),
    ],
)
def test_preset(source, name, output, shape, models, saved, tmp_path):
    path = saved(source)
    folder = tmp_path / "preset"
    made = convert_checkpoint(path, source, folder, num_heads=heads(source))
    assert made == folder
    check_features(
        kerassl.load_encoder(folder, image_shape=shape),
        models[source.rpartition("_")[-1]],
    )
    info = kerassl.verify_preset(folder)
    assert (info.architecture, info.output) == (name, output)
    assert info.datasets == ("imagenet-1k",)
    card = (folder / "README.md").read_text()
    assert f'license: "{SOURCES[source].license}"' in card
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for text in (SOURCES[source].paper, SOURCES[source].url, path.name, digest):
        assert text in card
    with pytest.raises(FileExistsError):
        convert_checkpoint(path, source, folder, num_heads=heads(source))


@pytest.mark.parametrize(
    "source, change, message",
    [
        (
            "moco_v2_resnet50",
            lambda state: state.pop("layer2.0.bn3.running_var"),
            r"'module.encoder_q.layer2.0.bn3.running_var' of shape \(32,\) is "
            "missing",
        ),
        (
            "dino_resnet50",
            lambda state: state.pop("conv1.weight"),
            "none of the keys .*'conv1.weight'.* Found: .*'bn1.weight'",
        ),
        (
            "mae_vit",
            lambda state: state.update(fc_norm=torch.ones(12)),
            r"'fc_norm' of shape \(12,\) is unexpected",
        ),
        (
            "mae_vit",
            lambda state: state.update(fc_norm="a string"),
            "'fc_norm' of shape None is unexpected",
        ),
        (
            "dino_vit",
            lambda state: state.update(
                {"blocks.1.attn.qkv.weight": torch.ones(24, 12)}
            ),
            r"'backbone.blocks.1.attn.qkv.weight' has shape \(24, 12\) instead "
            r"of \(36, 12\)",
        ),
        (
            "mae_vit_transformers",
            lambda state: state.pop("encoder.layer.0.output.dense.bias"),
            r"'vit.encoder.layer.0.output.dense.bias' of shape \(12,\)",
        ),
        (
            "moco_v3_vit",
            lambda state: state.update(pos_embed=torch.ones(1, 9, 12)),
            "'module.base_encoder.pos_embed' must .* Found: 9 positions",
        ),
        (
            # MoCo v3's convolutional stem.
            "moco_v3_vit",
            lambda state: state.update(
                {
                    "patch_embed.proj.0.weight": state.pop(
                        "patch_embed.proj.weight"
                    )
                }
            ),
            "'module.base_encoder.patch_embed.proj.weight' must be a tensor of "
            "rank 4. Found: None",
        ),
        (
            # A wide ResNet, which KerasHub has none of.
            "swav_resnet50",
            lambda state: state.update(
                {"layer1.0.conv1.weight": torch.ones(128, 64, 1, 1)}
            ),
            "must start with 64 filters",
        ),
    ],
)
def test_wrong_keys_are_named(source, change, message, saved, tmp_path):
    path = saved(source, change)
    with pytest.raises(presets.PresetError, match=message):
        convert_checkpoint(
            path, source, tmp_path / "preset", num_heads=heads(source)
        )
    assert list(tmp_path.iterdir()) == []


def test_heads_are_asked_for(saved, tmp_path):
    path = saved("dino_vit")
    with pytest.raises(presets.PresetError, match="width 12.*192, 384, 768"):
        convert_checkpoint(path, "dino_vit", tmp_path / "preset")
    with pytest.raises(presets.PresetError, match="5 heads don't divide 12"):
        convert_checkpoint(path, "dino_vit", tmp_path / "preset", num_heads=5)
    path = saved("swav_resnet50")
    with pytest.raises(presets.PresetError, match="has no heads"):
        convert_checkpoint(path, "swav_resnet50", tmp_path / "p", num_heads=3)


def test_official_heads():
    # MoCo v3's small ViT has twice as many as DINO's.
    assert SOURCES["moco_v3_vit"].heads[384] == 12
    assert SOURCES["dino_vit"].heads[384] == 6
    assert SOURCES["mae_vit"].heads[1280] == 16


def test_no_code_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {}, "x": Evil()}, path)
    with pytest.raises(presets.PresetError, match="runs no code") as error:
        convert_checkpoint(path, "moco_v2_resnet50", tmp_path / "preset")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    assert os.listdir(tmp_path) == ["checkpoint.pth"]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(FileNotFoundError, match="no file"):
        convert_checkpoint(path, "mae_vit", tmp_path / "preset")
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(presets.PresetError, match="can't be read"):
        convert_checkpoint(path, "mae_vit", tmp_path / "preset")
    torch.save([1], path)
    with pytest.raises(presets.PresetError, match="no dict"):
        convert_checkpoint(path, "mae_vit", tmp_path / "preset")
    with pytest.raises(ValueError, match="Nearest: mae_vit"):
        convert_checkpoint(path, "mae_vt", tmp_path / "preset")


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_missing_packages_are_named(package, tmp_path, monkeypatch):
    ending = ".pth" if package == "torch" else ".safetensors"
    path = tmp_path / f"checkpoint{ending}"
    path.touch()
    for name in (package, f"{package}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        convert_checkpoint(path, "mae_vit", tmp_path / "preset")


def test_safetensors(models, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    state = under("vit.", models["transformers"].state_dict())
    path = tmp_path / "model.safetensors"
    numpy.save_file({k: v.detach().numpy() for k, v in state.items()}, path)
    folder = convert_checkpoint(
        path, "mae_vit_transformers", tmp_path / "preset", num_heads=HEADS
    )
    check_features(kerassl.load_encoder(folder), models["transformers"])
