"""The model card of a preset: README.md, with metadata for the Hub."""

import json
from typing import Any

from kerassl import registry
from kerassl.presets.format.info import CONVERTER, INFO, UNLICENSED, PresetInfo
from kerassl.presets.privacy import OWN, hub_id, used_labels
from kerassl.value_range import parse_range

ADDRESS = "hf://OWNER/{name}"


def card(info: PresetInfo) -> str:
    """Returns a preset's model card, with metadata for the Hub.

    Args:
        info: `PresetInfo`; `files` isn't used.

    Returns:
        Markdown with a YAML header.
    """
    parts = [
        _header(info),
        f"# {info.name}",
        info.description or _summary(info),
        _facts(info),
        _scores(info),
        _use(info),
        _training(info),
        _limits(info),
        _citation(info),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(info: PresetInfo) -> str:
    tags = ["kerassl", "keras", "self-supervised-learning", info.architecture]
    if info.method:
        tags.append(info.method)
    fields: dict[str, Any] = {
        "library_name": "kerassl",
        "pipeline_tag": "image-feature-extraction",
        "tags": tags,
    }
    if info.license != UNLICENSED:
        fields = {"license": info.license} | fields
    # The Hub refuses cards with other names.
    if datasets := [name for d in info.datasets if (name := hub_id(d))]:
        fields["datasets"] = datasets
    if info.scores:
        # Scores that don't say so are of the data set it was trained on, if
        # that is clear.
        data = info.datasets[0] if len(info.datasets) == 1 else "unknown"
        results = [
            _result(protocol, {"data": data} | scores)
            for protocol, scores in info.scores.items()
            if "accuracy" in scores
        ]
        fields["model-index"] = [{"name": info.name, "results": results}]
    # JSON is valid YAML, and needs no other library.
    lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _result(protocol: str, scores: dict[str, Any]) -> dict[str, Any]:
    data = str(scores["data"])
    return {
        "task": {"type": "image-classification", "name": protocol},
        # The Hub's type for images that aren't on the Hub.
        "dataset": {"type": hub_id(data) or "imagefolder", "name": data},
        "metrics": [
            {
                "type": "accuracy",
                "name": f"{protocol} accuracy",
                "value": scores["accuracy"],
            }
        ],
    }


def _summary(info: PresetInfo) -> str:
    text = f"An encoder of images, {info.architecture}, "
    text += f"pretrained with {info.method}" if info.method else "pretrained"
    if info.datasets:
        text += f" on {', '.join(info.datasets)}"
    settings = (info.recipe or {}).get("method_args", {})
    if settings.get("supervised"):
        return f"{text}, with labels."
    # Not if weights or a teacher before it have, or may have, seen labels.
    if used_labels(info.recipe, info.training) is False:
        text += ", without labels"
    return f"{text}."


def _facts(info: PresetInfo) -> str:
    shape = " x ".join("any" if s is None else str(s) for s in info.image_shape)
    values = "values in [0, 255]"
    if info.value_range is not None:
        values += f", where 0 to 255 stand for {parse_range(info.value_range)}"
    rows = {
        "Images": f"{shape}, channels last, {values}",
        "Features": f"{info.features}",
        "Weights": f"{info.parameters:,}, float32",
        "License": "none" if info.license == UNLICENSED else info.license,
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _scores(info: PresetInfo) -> str:
    if not info.scores:
        return ""
    lines = [
        "## Scores",
        "",
        "| Protocol | Accuracy | Settings |",
        "|---|---|---|",
    ]
    for protocol, scores in info.scores.items():
        settings = ", ".join(
            f"{key} {_short(value)}"
            for key, value in scores.items()
            if key != "accuracy" and not isinstance(value, (dict, list))
        )
        accuracy = _short(scores.get("accuracy", ""))
        lines.append(f"| {protocol} | {accuracy} | {settings} |")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _use(info: PresetInfo) -> str:
    address = ADDRESS.format(name=info.name)
    parts = [
        "## Use",
        "With kerassl, which verifies the files and runs no code from them:",
        _code(
            "import kerassl",
            "",
            f'encoder = kerassl.load_encoder("{address}")',
            "features = encoder.predict(images)"
            f"  # (N, {info.features}), of images in [0, 255]",
        ),
        "With KerasHub, without kerassl:",
    ]
    options = "num_classes=10"
    if info.class_name == "ViTBackbone" and info.output != "class_token":
        # By default KerasHub takes the class token, which wasn't trained.
        options += ', pooling="gap"'
    classifier = [
        "classifier = keras_hub.models.ImageClassifier.from_preset(",
        f'    "{address}", {options}',
        ")",
    ]
    if info.class_name == "DINOV2Backbone":
        # KerasHub has no classifier of it.
        classifier = []
    if info.class_name != "Functional":
        parts += [
            _code(
                "import keras_hub",
                "",
                "backbone = keras_hub.models.Backbone.from_preset(",
                f'    "{address}"',
                ")",
                *classifier,
            ),
            f"The backbone doesn't normalize its images. {CONVERTER} contains "
            "the scale and offset"
            + (
                ", and the preprocessor of `ImageClassifier` applies them."
                if classifier
                else " for `keras_hub.layers.ImageConverter`."
            ),
        ]
        return "\n\n".join(parts)
    pooling = [
        "maps = model.predict(images)  # (N, height, width, channels)",
        "features = maps.mean(axis=(1, 2))",
    ]
    if info.output == "map":
        parts += [_code("import keras_hub", "", *classifier)]
    else:
        parts.pop()
        pooling = ["features = model.predict(images)"]
    parts += [
        "With Keras only:",
        _code(
            "import keras",
            "",
            f'model = keras.saving.load_model("{address}")',
            *pooling,
        ),
        "The model normalizes its images itself.",
    ]
    return "\n\n".join(parts)


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _training(info: PresetInfo) -> str:
    rows = dict(info.training)
    lines = ["## Training"]
    command = rows.pop("command", None)
    if command:
        lines += ["", "```", str(command), "```"]
    if info.recipe_hash:
        rows["recipe hash"] = info.recipe_hash
    rows |= info.versions
    if rows:
        lines += ["", *(f"- {key}: {value}" for key, value in rows.items())]
    if info.recipe:
        lines += ["", f"All hyperparameters are in {INFO}."]
    return "\n".join(lines) if len(lines) > 1 else ""


def _limits(info: PresetInfo) -> str:
    images = ", ".join(d for d in info.datasets if d != OWN)
    images = images or "its training data"
    text = (
        "## Limits\n\nThe features suit images like those of "
        f"{images}, of about the size above. They inherit the biases of those "
        "images, and were not evaluated for use on people."
    )
    return f"{text} The scores are from a single run." if info.scores else text


def _citation(info: PresetInfo) -> str:
    """Cites the papers of the method, which may be the name of a class."""
    lines = [
        f"- {entry.title}: [{entry.paper}]({entry.url})"
        for entry in registry.entries().values()
        if info.method in (entry.name, entry.class_name)
    ]
    return "\n".join(["## Citation", "", *lines]) if lines else ""
