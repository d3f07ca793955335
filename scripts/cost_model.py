"""Counts what a training step costs, without running it.

    KERAS_BACKEND=jax python scripts/cost_model.py --scale imagenet

Writes a line of JSON for each method into docs/results/cost.jsonl, in place of
an earlier one of the same method and scale. Operations are those of the step's
program before the compiler changes it, as XLA counts them: multiplications and
additions each. They are for float32 shapes, and no data are needed.

- `recipe`: the recipe's hash. A test asks for a new count when it has changed.
- `flops_per_image`: views, forward and backward pass and loss, of one image.
- `encoder_flops_per_view`: one image through the encoder, forward.
- `passes`: the first over the second: what an epoch costs in encoder passes. A
  view that is trained on counts 3, a target 1.
- `parameters`, `state_bytes`: the trained numbers; the bytes of the rest:
  momentum networks, queues, statistics.
- `largest_bytes`: the largest array across the batch: logits of SimCLR, the
  matrix of Barlow Twins, or scores against a queue; of the recipe's batch.
- `reduced_bytes`, `gathered_bytes`: what devices exchange in a step besides
  batch statistics; see docs/many_devices.md.
"""

import argparse
import json
import math
import os
import sys
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

# Before kerassl, since it adds the repository's root to the path.
from results import RESULTS, read_lines  # isort: skip

from kerassl import recipes
from kerassl.registry import entries

TARGET = RESULTS / "cost.jsonl"
SIZE = {"cpu": 32, "cifar": 32, "imagenet": 224}
# Enough for all, and little to trace.
BATCH = 32


def flops(function: Any, *arguments: Any) -> float:
    """Returns the operations of a function, as XLA counts them."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments
    )
    counted: Any = jax.jit(function).lower(*shapes).cost_analysis()
    return counted["flops"]


def step_flops(model: Any, size: int) -> float:
    """Returns the operations of views, passes and loss for `BATCH` images."""
    trained = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    images = np.zeros((BATCH, size, size, 3), "uint8")

    def loss(trained: list, rest: list, images: Any) -> Any:
        values = [
            *zip(model.trainable_variables, trained),
            *zip(model.non_trainable_variables, rest),
        ]
        with keras.StatelessScope(values):
            outputs = model(images, training=True)
            if model.needs_labels:
                outputs |= {"labels": jax.numpy.zeros(BATCH, "int32")}
            return model.objective(outputs)["loss"]

    return flops(jax.grad(loss), trained, rest, images)


def encoder_flops(encoder: Any, size: int) -> float:
    """Returns the operations of the encoder for `BATCH` images."""
    weights = [
        [v.value for v in variables]
        for variables in (
            encoder.trainable_variables,
            encoder.non_trainable_variables,
        )
    ]
    images = np.zeros((BATCH, size, size, 3), "float32")
    return flops(
        lambda *given: encoder.stateless_call(*given)[0], *weights, images
    )


def counts(method: str, model: Any, batch: int) -> dict[str, int]:
    """Returns bytes that follow from what the method's recipes declare.

    See `cost` of `kerassl.registry.MethodEntry`.
    """
    teacher = getattr(model, "teacher", model.encoder)
    known = {
        "batch": batch,
        "views": len(model.augmenter.view_names),
        "width": model.encoder.output_shape[-1],
        "teacher_width": teacher.output_shape[-1],
        # MoCo's groups are drawn from the batches of all devices.
        "shuffled_pixels": math.prod(model.encoder.input_shape[1:])
        * (getattr(model, "batch_groups", 1) > 1),
    }

    def number(term: str) -> int:
        if term.isdigit():
            return int(term)
        value = known[term] if term in known else getattr(model, term)
        return value if isinstance(value, int) else len(value)

    def size(name: str) -> int:
        rows, columns = (
            sum(map(number, terms.split("+")))
            for terms in entries()[method].cost.get(name, ("0", "0"))
        )
        return 4 * rows * columns

    return {
        "largest_bytes": size("largest"),
        "reduced_bytes": batch * size("reduced"),
        "gathered_bytes": batch * size("gathered"),
    }


def cost(method: str, scale: str) -> dict[str, Any]:
    """Returns what is written of a method."""
    recipe = recipes.get(method, scale)
    size = recipe.image_size or SIZE[scale]
    model = recipes.build_model(recipe, (size, size, 3), 100)
    whole = step_flops(model, size) / BATCH
    encoder = encoder_flops(model.encoder, size) / BATCH
    counted = counts(method, model, recipe.batch_size)
    parameters = sum(v.value.size for v in model.trainable_variables)
    return {
        "method": method,
        "scale": scale,
        "recipe": recipe.hash,
        "encoder": recipe.encoder,
        "image_size": size,
        "batch_size": recipe.batch_size,
        "views": len(model.augmenter.view_names),
        "flops_per_image": round(whole),
        "encoder_flops_per_view": round(encoder),
        "passes": round(whole / encoder, 2),
        "parameters": parameters,
        "state_bytes": sum(
            v.value.nbytes for v in model.non_trainable_variables
        ),
        **counted,
        "reduced_bytes": 4 * parameters + counted["reduced_bytes"],
    }


def main() -> int:
    """Counts, and writes as it goes."""
    parser = argparse.ArgumentParser(description="Count operations and bytes.")
    parser.add_argument("--only", nargs="+", choices=recipes.methods())
    parser.add_argument("--scale", choices=SIZE, default="cpu")
    options = parser.parse_args()
    for method in options.only or recipes.methods():
        found = cost(method, options.scale)
        print(json.dumps(found), flush=True)
        kept = [
            line
            for line in read_lines(TARGET)
            if (line["method"], line["scale"]) != (method, options.scale)
        ]
        kept = sorted([*kept, found], key=lambda c: (c["scale"], c["method"]))
        text = "".join(json.dumps(line) + "\n" for line in kept)
        TARGET.write_text(text, encoding="utf-8")
        keras.backend.clear_session()
    return 0


if __name__ == "__main__":
    sys.exit(main())
