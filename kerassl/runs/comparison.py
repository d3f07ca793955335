"""What scores allow one to say about encoders measured side by side."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kerassl.runs.rivals import FLOOR, SCRATCH

CONFIDENCE = 0.95


def standard_error(draws: Sequence[float]) -> float | None:
    """Returns the standard error of the mean over draws of labels.

    Args:
        draws: floats, the accuracy of each draw.

    Returns:
        A float, or `None` if there are fewer than two draws.
    """
    if len(draws) < 2:
        return None
    return float(np.std(draws, ddof=1)) / math.sqrt(len(draws))


def difference(
    score: Mapping[str, Any], other: Mapping[str, Any], test_size: int
) -> tuple[float, float]:
    """Compares two encoders that learned from the same draws of labels.

    The margin covers two things that chance decides. Over draws of labels it is
    Student's interval of the mean difference, draw by draw; of an older score,
    which kept only the standard deviation of its draws, as if the draws were
    others. Over test images it is Agresti and Caffo's, which holds near 0 and 1
    too. It takes the two accuracies as independent, which overstates it, since
    both encoders are scored on the same images.

    Args:
        score: dict with `accuracy` in [0, 1], and `draws`, if there are any.
        other: such a dict, or one with `std` in place of `draws`.
        test_size: int, the number of test images.

    Returns:
        A pair of floats: by how much the accuracy is above the other one, and
        half the width of the 95 % interval around it.

    Reference:
        - Agresti and Caffo, 2000, https://doi.org/10.2307/2685779
    """
    from scipy import special

    tail = 1 - (1 - CONFIDENCE) / 2
    # One right and one wrong image more for each. Their interval is around a
    # smaller difference; around the one observed it has to be wider.
    size = test_size + 2
    shares = [(test_size * s["accuracy"] + 1) / size for s in (score, other)]
    images = sum(p * (1 - p) for p in shares) / size
    margin = special.ndtri(tail) ** 2 * images * (size / test_size) ** 2
    draws = [np.ravel(one.get("draws", ())) for one in (score, other)]
    count = len(draws[0])
    if count > 1:
        if len(draws[1]) == count:
            variance = np.var(draws[0] - draws[1], ddof=1)
        else:
            variance = np.var(draws[0], ddof=1) + (other.get("std") or 0) ** 2
        margin += special.stdtrit(count - 1, tail) ** 2 * variance / count
    return score["accuracy"] - other["accuracy"], math.sqrt(margin)


def statements(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields what the scores of each protocol with other encoders allow.

    Args:
        scores: dict from a protocol's name to its scores. Those without
            `beside` are left out.

    Yields:
        A sentence or two.
    """
    for protocol, score in scores.items():
        if score.get("beside") and "test_size" in score:
            yield _statement(protocol, score)


def _statement(protocol: str, score: Mapping[str, Any]) -> str:
    size = score["test_size"]
    trained = protocol.startswith("finetune")
    floor = SCRATCH if trained else FLOOR
    others = {}
    if score.get("untrained_accuracy") is not None:
        others[floor] = {
            "accuracy": score["untrained_accuracy"],
            "draws": score.get("untrained_draws", ()),
            "std": score.get("untrained_std"),
        }
    others |= score["beside"]
    found = {name: difference(score, one, size) for name, one in others.items()}
    parts = [_part(name, *pair) for name, pair in found.items()]
    draws = len(score.get("draws", ()))
    over = f"{size:,} test images"
    if draws > 1:
        over = f"{draws} seeds and {over}"
    *most, last = parts
    listed = f"{', '.join(most)} and {last}" if most else last
    return (
        f"{protocol}: this encoder is {listed} (95 % intervals over "
        f"{over}). {_verdict(found, floor, draws, trained)}"
    )


def _part(name: str, above: float, margin: float) -> str:
    points = f"{abs(100 * above):.1f} ± {100 * margin:.1f} points"
    if abs(above) <= margin:
        return f"level with {name} ({100 * above:+.1f} ± {100 * margin:.1f})"
    return f"{points} {'above' if above > 0 else 'below'} {name}"


def _verdict(
    found: Mapping[str, tuple[float, float]],
    floor: str,
    draws: int,
    trained: bool,
) -> str:
    rivals = {name: pair for name, pair in found.items() if name != floor}
    better = [
        name for name, (above, margin) in rivals.items() if -above > margin
    ]
    level = [name for name, (above, m) in rivals.items() if abs(above) <= m]
    said = []
    if floor in found and found[floor][0] <= found[floor][1]:
        said.append(f"Nothing shows that it is better than {floor}.")
    if better:
        how = "without any training of yours"
        if trained:
            how = "fine-tuned alike, without your pretraining"
        said.append(
            f"On these images {' and '.join(better)} would have served better, "
            f"{how}."
        )
    elif level:
        more = "more test images"
        if draws:
            more = f"more seeds (--seeds) or {more}"
        said.append(
            f"Whether it is better than {' and '.join(level)} is undecided; "
            f"{more} may tell."
        )
    return " ".join(said or ["On these images it was worth training."])
