"""Lists of operations: fused as if one by one, and checked early."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.augmentation import (
    CenterCrop,
    ColorJitter,
    GaussianBlur,
    Operation,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Solarize,
    SpatialOperation,
    View,
    ViewAugmenter,
)
from kerassl.augmentation.namespace import TensorFlowNamespace
from kerassl.augmentation.pipeline import Pipeline
from tests.augmentation.fused import smooth_images
from tests.backends import compiled, examples


@keras.saving.register_keras_serializable(package="tests")
@dataclasses.dataclass(frozen=True)
class Shade(Operation):
    """Darkens each image to the left, by its own amount."""

    strengths: tuple[float, float] = (0.0, 0.5)
    num_uniforms = 1

    def apply(self, xp, images, uniforms):
        low, high = self.strengths
        width = images.shape[2]
        column = xp.cast(xp.arange(width), "float32")[None, None, :, None]
        amount = low + (high - low) * uniforms[:, :, None, None]
        return images * (1.0 - amount * (1.0 - column / width))


@keras.saving.register_keras_serializable(package="tests")
@dataclasses.dataclass(frozen=True)
class Roll(SpatialOperation):
    """Moves rows down by up to three, around the edge."""

    def matrices(self, xp, uniforms, height, width):
        row = xp.cast(xp.arange(height), "float32")
        shift = xp.floor(uniforms * 4.0)[:, :, None]
        source = (row[None, :, None] - shift) % height
        return xp.cast(xp.abs(source - row) < 0.5, "float32"), None


@dataclasses.dataclass(frozen=True)
class Halve(Operation):
    """Takes every other pixel, and may say another size."""

    size: int | None
    num_uniforms = 0

    def apply(self, xp, images, uniforms):
        return images[:, ::2, ::2]


ON_JAX = keras.config.backend() == "jax"
RANDOM = [
    RandomResizedCrop(12, interpolation="bicubic"),
    RandomHorizontalFlip(),
    GaussianBlur(sigma=(0.5, 2.0)),
    ColorJitter(),
    RandomGrayscale(0.5),
    Solarize(0.5),
    Shade(),
    Roll(),
]


def numbers_for(operations, count, seed=0):
    total = sum(operation.num_uniforms for operation in operations)
    rng = np.random.default_rng(seed)
    return rng.random((count, total), "float32")


def one_by_one(operations, images, numbers):
    x, first = ops.cast(images, "float32"), 0
    for operation in operations:
        last = first + operation.num_uniforms
        x = operation.apply(ops, x, numbers[:, first:last])
        first = last
    return x


# JAX compiles every example.
@settings(max_examples=examples(4) if ON_JAX else 15)
@given(
    order=st.permutations(
        [
            RandomResizedCrop(12, interpolation="bicubic"),
            RandomHorizontalFlip(),
            GaussianBlur(0.7),
            Shade(),
            Roll(),
        ]
    ),
    count=st.integers(1, 5),
    color=st.sampled_from([None, 0, 2, 5]),
    seed=st.integers(0, 999),
)
def test_fused_operations_equal_one_after_the_other(order, count, color, seed):
    operations = order[:count]
    if color is not None:
        operations.insert(color, RandomGrayscale(0.5))
    # Away from black and white, where bicubic weights would be clipped.
    images = smooth_images(4, size=16, seed=seed) // 2 + 64
    numbers = numbers_for(operations, 4, seed)
    arguments = ops.convert_to_tensor(images), ops.convert_to_tensor(numbers)
    fused, slow = (
        ops.convert_to_numpy(compiled(function)(*arguments))
        for function in (
            lambda *arrays: Pipeline(operations)(ops, *arrays),
            lambda *arrays: one_by_one(operations, *arrays),
        )
    )
    np.testing.assert_allclose(fused / 255, slow / 255, atol=1e-4)


def test_every_operation_equals_its_own_apply():
    images = ops.convert_to_tensor(smooth_images(6, size=16))
    for operation in RANDOM[1:]:
        numbers = ops.convert_to_tensor(numbers_for([operation], 6))
        np.testing.assert_allclose(
            ops.convert_to_numpy(Pipeline([operation])(ops, images, numbers)),
            ops.convert_to_numpy(one_by_one([operation], images, numbers)),
            atol=2e-2,
        )


def test_the_order_is_the_one_given():
    images = np.full((1, 8, 8, 3), 200.0, "float32")
    shade = Shade((0.5, 0.5))
    first, last = (
        ops.convert_to_numpy(ViewAugmenter(o, num_views=1)(images)["view_1"])
        for o in ([Solarize(1.0), shade], [shade, Solarize(1.0)])
    )
    np.testing.assert_allclose(first[0, 0, 0], 55 / 2, atol=1e-3)
    np.testing.assert_allclose(last[0, 0, 0], 100, atol=1e-3)
    np.testing.assert_allclose(last[0, 0, -1], 255 - 187.5, atol=1e-3)


@pytest.mark.parametrize(
    "operations",
    [
        [RandomResizedCrop(8), RandomHorizontalFlip(), ColorJitter()],
        [RandomHorizontalFlip(), Resize(8)],
        [Resize(8), Solarize(0.5)],
        [ColorJitter(), RandomResizedCrop(8), GaussianBlur()],
    ],
)
def test_views_made_together_are_those_made_alone(operations):
    pipeline = Pipeline(operations)
    images = ops.convert_to_tensor(smooth_images(4, size=16))
    numbers = numbers_for(operations, 12)
    together = pipeline(ops, images, ops.convert_to_tensor(numbers), 3)
    together = np.reshape(ops.convert_to_numpy(together), (4, 3, 8, 8, 3))
    for i in range(3):
        alone = pipeline(ops, images, ops.convert_to_tensor(numbers[i::3]))
        np.testing.assert_allclose(
            together[:, i], ops.convert_to_numpy(alone), atol=1e-3
        )


def test_equal_views_are_made_together(monkeypatch):
    views = [View(8), View(9), View(8), [Halve(8)], [Halve(8)], View(8)]
    views = dict(zip("abcdef", views))
    alone = ViewAugmenter(views, seed=1)
    monkeypatch.setattr("kerassl.augmentation.augmenter._is_cpu", lambda: False)
    together = ViewAugmenter(views, seed=1)
    made = []
    call = Pipeline.__call__

    def count(self, xp, images, uniforms, copies=1):
        made.append(copies)
        return call(self, xp, images, uniforms, copies)

    monkeypatch.setattr(Pipeline, "__call__", count)
    images = smooth_images(2, size=16)
    together = together(images)
    # An operation on whole images may not treat each on its own.
    assert made == [3, 1, 1, 1] and list(together) == list(views)
    same = np.stack([ops.convert_to_numpy(together[name]) for name in "acf"])
    assert len(np.unique(same.reshape(6, -1), axis=0)) == 6
    # On a CPU, where it doesn't pay, the views are the same.
    for name, view in alone(images).items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(view),
            ops.convert_to_numpy(together[name]),
            atol=1e-3,
        )
    assert made == [3, 1, 1, 1] + [1] * 6


def test_adjacent_spatial_operations_resample_once(monkeypatch):
    from kerassl.augmentation import geometry

    calls = []
    resample = geometry.resample
    monkeypatch.setattr(
        geometry, "resample", lambda *a: calls.append(1) or resample(*a)
    )
    ViewAugmenter(
        [RandomResizedCrop(8), Roll(), GaussianBlur(), ColorJitter()]
    )(smooth_images(2))
    assert len(calls) == 2  # One for each view.


@pytest.mark.parametrize("operation", RANDOM, ids=lambda o: type(o).__name__)
def test_images_and_calls_differ(operation):
    images = np.repeat(smooth_images(1, size=16), 16, axis=0)
    augmenter = ViewAugmenter([operation], num_views=1, seed=0)
    first, second = (
        ops.convert_to_numpy(augmenter(images)["view_1"]) for _ in range(2)
    )
    assert len(np.unique(first.reshape(16, -1), axis=0)) > 1
    assert np.abs(first - second).max() > 1


def test_all_views_take_one_draw(monkeypatch):
    drawn = []
    uniform = keras.random.uniform

    def count(shape, *args, **kwargs):
        drawn.append(shape[1])
        return uniform(shape, *args, **kwargs)

    monkeypatch.setattr(keras.random, "uniform", count)
    ViewAugmenter([RANDOM, RANDOM[:2]])(smooth_images(2))
    used = [operation.num_uniforms for operation in [*RANDOM, *RANDOM[:2]]]
    assert drawn == [sum(used)]


def test_a_view_is_a_list_of_operations():
    view = View(16, crop_area=[0.2, 1.0], flip=0.0, blur=0.5, solarize=0.1)
    assert view.operations() == [
        RandomResizedCrop(16, (0.2, 1.0)),
        GaussianBlur(0.5),
        ColorJitter(),
        RandomGrayscale(),
        Solarize(0.1),
    ]
    images = smooth_images(4)
    short, long = (
        ops.convert_to_numpy(ViewAugmenter(v, seed=1)(images)["view_2"])
        for v in (view, view.operations())
    )
    np.testing.assert_array_equal(short, long)


def test_one_pipeline_or_several():
    crop, flip = RandomResizedCrop(8), RandomHorizontalFlip()

    def views(*args, **kwargs):
        return dict(ViewAugmenter(*args, **kwargs).views)

    both = (crop, flip)
    assert views([crop, flip]) == {"view_1": both, "view_2": both}
    assert views([crop, flip], num_views=1) == {"view_1": both}
    assert views(View(8), 3) == {f"view_{i}": View(8) for i in (1, 2, 3)}
    assert views([[crop], View(8)]) == {"view_1": (crop,), "view_2": View(8)}
    assert views({"a": [flip], "b": [crop]}) == {"a": (flip,), "b": (crop,)}


def test_sizes_are_the_last_ones_set():
    augmenter = ViewAugmenter(
        {
            "a": [Resize(20), CenterCrop(10), RandomHorizontalFlip()],
            "b": [RandomHorizontalFlip(), ColorJitter()],
            "c": [],
            "d": [Halve(12), RandomGrayscale()],
        }
    )
    assert augmenter.sizes == {"a": 10, "b": None, "c": None, "d": 12}
    images = smooth_images(2, size=24)[:, :, :22]
    with pytest.raises(ValueError, match=r"Halve.*\(batch, 12, 12, 3\)"):
        augmenter(images)
    images = smooth_images(2, size=24)
    made = augmenter(images)
    shapes = {name: tuple(view.shape) for name, view in made.items()}
    assert shapes == augmenter.compute_output_shape(images.shape)
    np.testing.assert_array_equal(ops.convert_to_numpy(made["c"]), images)


def test_center_crop_is_exact():
    images = smooth_images(2, size=20)
    crop = ViewAugmenter([CenterCrop(12)], num_views=1)
    made = ops.convert_to_numpy(crop(images)["view_1"])
    np.testing.assert_allclose(made, images[:, 4:16, 4:16], atol=1e-3)
    with pytest.raises(ValueError, match="at least that size.*8x8"):
        crop(smooth_images(2, size=8))


def test_saving_keeps_operations():
    augmenter = ViewAugmenter({"a": RANDOM, "b": View(12)}, seed=3)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(augmenter)
    )
    assert again.views == augmenter.views
    images = smooth_images(2)
    for name in "ab":
        np.testing.assert_array_equal(
            ops.convert_to_numpy(again(images)[name]),
            ops.convert_to_numpy(augmenter(images)[name]),
        )


def test_a_file_of_an_older_version_loads():
    fields = {**dataclasses.asdict(View(8)), "crop_area": [0.2, 1.0]}
    config = {"views": {"view_1": fields}, "seed": None, "name": "a"}
    again = ViewAugmenter.from_config(config)
    assert again.views == {"view_1": View(8, crop_area=(0.2, 1.0))}


def test_an_unknown_operation_is_refused():
    config = ViewAugmenter([Halve(8)]).get_config()
    (step,) = config["views"]["view_1"]
    step |= {"class_name": "Unknown", "module": None}
    with pytest.raises(TypeError, match="Could not locate class 'Unknown'"):
        ViewAugmenter.from_config(config)


@pytest.mark.parametrize(
    "views, kwargs, error, message",
    [
        (32, {}, TypeError, "`views` must be a `View` or a list"),
        ("simclr", {}, TypeError, "`views` must be a `View` or a list"),
        ([], {}, ValueError, "at least one view"),
        ([ColorJitter], {}, TypeError, r"views\['view_1'\]` must be"),
        ([ColorJitter()], {"num_views": 0}, ValueError, "`num_views`"),
        ([View(8)] * 2, {"num_views": 2}, ValueError, "single pipeline"),
        (
            [View(8), ColorJitter()],
            {},
            TypeError,
            r"views\['view_1'\]\[0\]` must be a `kerassl.augmentation.Op",
        ),
        (
            [keras.layers.RandomFlip(), ColorJitter()],
            {},
            TypeError,
            r"\[0\]` must be a `kerassl.augmentation.Operation`",
        ),
        ([Halve(0)], {}, ValueError, "`Halve.size` must be a positive"),
    ],
)
def test_what_is_no_pipeline_is_refused(views, kwargs, error, message):
    with pytest.raises(error, match=message) as raised:
        ViewAugmenter(views, **kwargs)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: RandomResizedCrop(0), "size"),
        (lambda: RandomResizedCrop(8, area=(0.5, 1.5)), "area"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), "ratio"),
        (lambda: Resize(8, "nearest"), "interpolation"),
        (lambda: CenterCrop(1.5), "size"),
        (lambda: RandomHorizontalFlip(1.5), "probability"),
        (lambda: GaussianBlur(sigma=(0.0, 2.0)), "sigma"),
        (lambda: ColorJitter(contrast=-1.0), "contrast"),
        (lambda: ColorJitter(hue=0.6), "hue"),
        (lambda: RandomGrayscale(-0.1), "probability"),
        (lambda: Solarize(threshold=200), "threshold"),
    ],
)
def test_arguments_out_of_range_are_refused(make, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()


def test_tensorflows_functions_are_those_of_keras():
    tf = pytest.importorskip("tensorflow")
    xp = TensorFlowNamespace()
    assert all(hasattr(ops, name) for name in vars(xp))
    x = np.random.default_rng(0).random((3, 4), "float32")
    for name, *arguments in [
        ("all", 1),
        ("any", 1),
        ("ceil",),
        ("expand_dims", 1),
        ("flip", 1),
        ("log",),
        ("power", 2.0),
        ("prod", 1),
        ("roll", 1, 0),
        ("sigmoid",),
        ("sign",),
        ("sort",),
        ("std", 1),
        ("tan",),
        ("tanh",),
        ("tile", (1, 2)),
        ("var", 1),
    ]:
        given = x > 0.3 if name in ("all", "any") else x
        np.testing.assert_allclose(
            getattr(xp, name)(tf.constant(given), *arguments),
            ops.convert_to_numpy(
                getattr(ops, name)(ops.convert_to_tensor(given), *arguments)
            ),
            rtol=1e-5,
            err_msg=name,
        )
    with pytest.raises(AttributeError, match="xp.erfinv"):
        xp.erfinv
