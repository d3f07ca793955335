"""Was pretraining worth it? 50,000 unlabeled images, and labels for 1 %.

    KERAS_BACKEND=torch python examples/few_labels.py runs/simclr

Compares, on the same few labels of CIFAR-10 and over three draws of them:

- a linear classifier on the random, frozen encoder;
- supervised learning from scratch;
- a linear classifier on the pretrained, frozen encoder;
- fine-tuning of the pretrained encoder.

Prints a table and draws it into `few_labels.png`. `runs/simclr` is what
`kerassl pretrain simclr --recipe cpu --data cifar10 --output runs/simclr` left;
a preset's name does, too. Measuring takes half an hour on two cores; `--kept`
draws the scores that a preset of the zoo was published with:

    python examples/few_labels.py simclr_resnet_nano_cifar10 --kept
"""

import argparse

from matplotlib.figure import Figure

import kerassl


def measure(source: str, data: str, share: float, seeds: int) -> list[dict]:
    """Returns the scores of the linear probe and of fine-tuning."""
    subject = kerassl.runs.Evaluation(source, data)
    return [
        kerassl.runs.protocol(name, labels=share, seeds=seeds).measure(subject)
        for name in ("linear", "finetune")
    ]


def kept(source: str, share: float) -> list[dict]:
    """Returns those that a preset of the zoo was published with."""
    presets = {info.name: info for info in kerassl.list_presets()}
    scores = presets[source].scores if source in presets else {}
    names = [f"{name}_{100 * share:g}%" for name in ("linear", "finetune")]
    if missing := [name for name in names if name not in scores]:
        raise SystemExit(
            f"{source} was not published with {', '.join(missing)}. It has: "
            f"{', '.join(scores) or 'no scores'}"
        )
    return [scores[name] for name in names]


def ways(linear: dict, tuned: dict) -> dict:
    """Returns the mean and the deviation of each way to learn."""
    return {
        "random, linear": (
            linear["untrained_accuracy"],
            linear["untrained_std"],
        ),
        "from scratch": (tuned["untrained_accuracy"], tuned["untrained_std"]),
        "pretrained, linear": (linear["accuracy"], linear["std"]),
        "pretrained, tuned": (tuned["accuracy"], tuned["std"]),
    }


def draw(found: dict, title: str) -> Figure:
    """Draws bars with their standard deviations."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    names = list(found)
    means = [100 * found[name][0] for name in names]
    errors = [100 * found[name][1] for name in names]
    colors = ["tab:gray", "tab:gray", "tab:blue", "tab:blue"]
    bars = axes.barh(names, means, xerr=errors, color=colors)
    axes.bar_label(bars, fmt="%.1f", padding=8)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="accuracy on the test images, %")
    axes.set_xlim(0, max(means) + 15)
    return figure


def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description="Compare with few labels.")
    parser.add_argument("source", help="a run, a preset or a .keras file")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--labels", type=float, default=0.01, help="the share")
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--kept", action="store_true", help="measure nothing")
    parser.add_argument("--output", default="few_labels.png")
    options = parser.parse_args()
    if options.kept:
        scores = kept(options.source, options.labels)
    else:
        scores = measure(
            options.source, options.data, options.labels, options.seeds
        )
    found = ways(*scores)
    for name, (mean, deviation) in found.items():
        print(f"{name:20} {mean:6.1%} +- {deviation:.1%}")
    title = f"{options.data}, {options.labels:.0%} of the labels"
    draw(found, title).savefig(options.output, dpi=120)


if __name__ == "__main__":
    main()
