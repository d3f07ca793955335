"""What is DINOv2's own."""

import pytest
from keras import ops

import kerassl
from tests.backends import once
from tests.contracts.methods import dinov2, ibot, tiny_encoder
from tests.methods.formulas import six_steps_agree

VIEWS = [f"view_{i}" for i in (1, 2, 3)]


def ibot_terms(outputs, teach):
    """The two losses of `iBOTLoss.forward`, from teacher's distributions."""
    import torch

    students = [torch.log_softmax(outputs[k] / 0.1, -1) for k in VIEWS]
    teachers = teach(
        torch.cat([outputs[f"teacher_{k}"] for k in VIEWS[:2]]), "center", None
    ).chunk(2)
    views = [
        -(teacher * student).sum(-1).mean()
        for q, teacher in enumerate(teachers)
        for v, student in enumerate(students)
        if v != q
    ]
    mask = outputs["mask"]
    patches = teach(
        outputs["teacher_patches"].flatten(0, 1), "patch_center", mask.flatten()
    ).reshape(outputs["patches"].shape)
    terms = -(patches * torch.log_softmax(outputs["patches"] / 0.1, -1)).sum(-1)
    hidden = (terms * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)
    return sum(views) / len(views) + hidden.mean()


@once
def test_six_steps_on_the_lines_of_ibot():
    """Centered, sharpened distributions, as in bytedance/ibot."""
    import torch

    def formula(outputs):
        def teach(logits, name, counted):
            return torch.softmax((logits - outputs[name]) / 0.05, -1).detach()

        return ibot_terms(outputs, teach)

    six_steps_agree(
        lambda: ibot(
            tiny_encoder(), teacher_temperature=0.05, patch_temperature=0.05
        ),
        formula,
        learning_rate=0.02,
    )


@once
def test_six_steps_on_the_lines_of_dinov2():
    """Sinkhorn-Knopp over prototypes in rows, and KoLeo of each large view."""
    import torch

    def formula(outputs):
        def teach(logits, name, counted):
            # `sinkhorn_knopp_teacher`, over the rows that count.
            rows = slice(None) if counted is None else counted > 0
            q = torch.exp(logits[rows] / 0.05).T
            q = q / q.sum()
            for _ in range(3):
                q = q / q.sum(dim=1, keepdim=True) / len(q)
                q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
            found = torch.zeros_like(logits)
            found[rows] = (q * q.shape[1]).T
            return found.detach()

        spread = 0.0
        for tokens in outputs["features"].chunk(2):
            x = tokens / tokens.norm(dim=1, keepdim=True)
            dots = x @ x.T - 2 * torch.eye(len(x), dtype=x.dtype)
            nearest = x[dots.argmax(dim=1)]
            spread = (
                spread
                - torch.log(
                    torch.nn.functional.pairwise_distance(x, nearest, eps=1e-8)
                    + 1e-8
                ).mean()
            )
        return ibot_terms(outputs, teach) + 0.1 * spread

    six_steps_agree(
        lambda: dinov2(
            tiny_encoder(), teacher_temperature=0.05, patch_temperature=0.05
        ),
        formula,
        learning_rate=0.02,
    )


def test_patches_have_heads_of_their_own(images):
    for shared, count in ((False, 2), (True, 1)):
        model = dinov2(tiny_encoder(), shared_head=shared)
        assert len(model.heads()) == count
        names = {w.path.split("/")[0] for w in model.trainable_weights}
        assert ("patch_projector" in names) == (not shared)
    # Sinkhorn needs no center.
    model = dinov2(tiny_encoder())
    views = model.make_views(ops.convert_to_tensor(images[:4]))
    model.forward_views(views, training=True)
    for center in (model.center, model.patch_center):
        assert not ops.convert_to_numpy(center).any()
    with pytest.raises(ValueError, match="centering"):
        dinov2(tiny_encoder(), centering="both")


@once
@pytest.mark.parametrize(
    "name, trained", [("cpu", 0), ("cifar", 2), ("imagenet", 2)]
)
def test_recipes_for_accelerators_train_the_scales(name, trained):
    arguments = kerassl.recipes.get("dinov2", name).method_args
    given = {k: v for k, v in arguments.items() if k == "train_scale"}
    model = dinov2(tiny_encoder(), **given)
    weights = [w for w in model.trainable_weights if w.name == "scale"]
    assert len(weights) == trained
