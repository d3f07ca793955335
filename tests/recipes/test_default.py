import pytest

from kerassl import recipes


@pytest.mark.parametrize(
    "image_size, accelerator, name, resized",
    [
        (28, False, "cpu", None),
        (64, False, "cpu", None),
        (65, False, "cpu", 64),
        (224, False, "cpu", 64),
        (28, True, "cifar", None),
        (64, True, "cifar", None),
        (65, True, "imagenet", 224),
        (500, True, "imagenet", 224),
    ],
)
def test_default_fits_the_images_and_the_device(
    image_size, accelerator, name, resized
):
    recipe = recipes.default("simclr", image_size, accelerator)
    assert (recipe.name, recipe.image_size) == (name, resized)
    # Nothing else is changed.
    named = recipes.get("simclr", name)
    assert recipe == named.replace(image_size=resized)


@pytest.mark.parametrize("method", recipes.methods())
def test_every_method_has_its_defaults(method):
    for accelerator in (False, True):
        for image_size in (32, 224):
            recipe = recipes.default(method, image_size, accelerator)
            assert recipe.method == method
            # The small encoders and the large ones aren't mixed up.
            small = recipe.encoder in (
                "resnet_nano",
                "resnet_18_small",
                "vit_nano",
                "vit_tiny",
            )
            assert small == (image_size == 32 or not accelerator)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="no method 'simclear'.*simclr"):
        recipes.default("simclear", 32, False)
