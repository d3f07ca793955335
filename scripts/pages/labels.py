"""docs/pictures/labels.svg: what pretraining is worth, by number of labels."""

from typing import Any

from results import PRESETS, ROOT, read_json

PICTURE = ROOT / "docs" / "pictures" / "labels.svg"
PRESET = "simclr_resnet_nano_cifar10_fast_32px"
SHARES = ("linear_1%", "linear_10%", "linear")


def lines() -> dict[str, list[tuple[int, float, float]]]:
    """Returns labels, accuracy and deviation, in percent, of each line."""
    index = read_json(PRESETS / "index.json")
    scores = index["presets"][PRESET]["info"]["scores"]
    tuned = scores["finetune_1%"]
    everything = read_json(PRESETS / "supervised.json")["resnet_nano"]
    return {
        "pretrained, frozen": [point(scores[share]) for share in SHARES],
        "from scratch": [
            point(tuned, "untrained_"),
            point(everything),
        ],
        "random, frozen": [
            point(scores[share], "untrained_") for share in SHARES
        ],
    }


def point(score: dict[str, Any], start: str = "") -> tuple[int, float, float]:
    """Returns one score as a point of a line."""
    deviation = 100 * score.get(f"{start}std", 0.0)
    return score["train_size"], 100 * score[f"{start}accuracy"], deviation


def draw() -> None:
    """Draws accuracy over numbers of labels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    colors = ("tab:blue", "tab:orange", "tab:gray")
    found = lines()
    every = [point for points in found.values() for point in points]
    for (name, points), color in zip(found.items(), colors, strict=True):
        counts, means, deviations = zip(*points, strict=True)
        # Dashed where nothing was measured in between.
        axes.errorbar(
            counts,
            means,
            yerr=deviations,
            color=color,
            marker="o",
            capsize=3,
            linestyle="-" if len(points) == len(SHARES) else "--",
        )
        for count, mean, _ in points:
            # Below the point if another one is just above it.
            is_near = any(
                other == count and 0 < above - mean < 8
                for other, above, _ in every
            )
            axes.annotate(
                f"{mean:.1f}",
                (count, mean),
                (0, -16 if is_near else 7),
                textcoords="offset points",
                horizontalalignment="center",
            )
        axes.annotate(
            name,
            (counts[-1], means[-1]),
            (14, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=color,
            fontweight="bold",
        )
    axes.set_xscale("log")
    axes.set_xticks([500, 5_000, 50_000], ["500", "5,000", "50,000"])
    axes.minorticks_off()
    axes.set_xlim(400, 190_000)  # Room for the names.
    axes.set_ylim(15, 85)
    axes.set(
        xlabel="labeled images",
        ylabel="accuracy, %",
        title="CIFAR-10, an encoder of 0.3 million parameters",
    )
    axes.spines[["top", "right"]].set_visible(False)
    # The same file again for the same numbers.
    with rc_context({"svg.hashsalt": "kerassl"}):
        figure.savefig(PICTURE, metadata={"Date": None})
