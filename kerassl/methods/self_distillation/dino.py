"""DINO: predict a teacher's distribution over prototypes from other views."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.choices import check_choice
from kerassl.distributed import gather, mean_over_devices
from kerassl.encoders import at_random_depth
from kerassl.layers import DINOHead, MomentumNetwork, update_together
from kerassl.losses import centered, dino, sinkhorn
from kerassl.methods.base import SelfSupervisedModel
from kerassl.networks import all_layers

# The number of views that the teacher sees; the student sees all.
TAUGHT = 2
CENTERINGS = ("mean", "sinkhorn")
# Without a center, that of DINO doesn't apply.
SINKHORN_ADVICE = (
    "Try a momentum closer to 1, a lower learning rate, fewer prototypes, or a "
    "larger batch of images of many kinds. With less than a few hundred images "
    'a step, try `centering="mean"`.'
)


def check_temperature(name: str, value: Any) -> None:
    """Refuses a temperature that is neither positive nor a schedule.

    Args:
        name: str, that of the argument.
        value: float, or a callable that returns it for a step.

    Raises:
        ValueError: if it is a number that isn't positive.
    """
    if not callable(value) and value <= 0:
        raise ValueError(f"`{name}` must be above 0. Received: {value}")


@keras.saving.register_keras_serializable(package="kerassl")
class DINO(SelfSupervisedModel):
    """Self-distillation with no labels.

    Student and teacher map a view to a distribution over prototypes. The
    teacher, a momentum copy of the student, sees the first two views; the
    student sees all, usually with small crops, and predicts each of the
    teacher's distributions from the other views (`kerassl.losses.dino`). Two
    opposed changes of the teacher's output prevent collapse: it is centered by
    the mean of past logits, and sharpened by a low temperature.

    The teacher is the better network, so its encoder is what `embed`,
    `save_to_preset`, runs and monitors use: `feature_encoder`. It has no
    gradients, no stochastic depth, and no dropout unless the encoder has batch
    normalization, whose statistics are the teacher's own.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        num_prototypes: int > 0, K: 65,536 for ImageNet, thousands for small
            data.
        hidden_dim: int > 0. The width of the heads' two hidden layers.
        projection_dim: int > 0. The width of the vectors that are compared with
            the prototypes.
        head_normalization: bool. Whether the heads' hidden layers have batch
            normalization.
        train_scale: bool. Whether the lengths of the prototypes are trained:
            the paper's choice for ViT-S only, as it can make training unstable.
        student_temperature: float > 0.
        teacher_temperature: float > 0, or a callable that returns it for a
            step, such as `kerassl.optimizers.Ramp`. Above 0.07 training is
            unstable.
        center_momentum: float in [0, 1], of the center with `centering="mean"`.
        centering: `"mean"`, the mean of past logits, as above; or `"sinkhorn"`,
            which shares the batch out evenly to all prototypes
            (`kerassl.losses.sinkhorn`), as DINOv2 does, without memory.
        momentum: float in [0, 1], of the teacher, or a callable that returns
            it for a step, such as `kerassl.layers.CosineMomentum`.
        stochastic_depth: float in [0, 1). The probability with which the
            student skips the last block of a ViT, rising linearly from 0 for
            the first (`kerassl.encoders.at_random_depth`). The teacher skips
            none. On PyTorch, `jit_compile=True` then compiles a step in parts,
            since Keras's random numbers can't be traced there.
        freeze_last_layer_steps: int >= 0. The number of initial steps in which
            the prototypes don't move. Set it to one epoch of your images, as
            in the paper; the default is one of ImageNet in batches of 1,024.
        augmenter: a `ViewAugmenter` of at least two views; the teacher sees the
            first two. By default `kerassl.augmentation.dino` at the encoder's
            image size, with the crops of ViTs.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, the augmenter makes
            fewer than two views, the first two differ in size, or the encoder
            can't take the small ones.

    Metrics: the two parts of the loss. `teacher_entropy` is ln(K) if the
    teacher is always undecided, and 0 if all its images get one prototype each;
    `teacher_kl` is 0 if student and teacher always agree. A collapse is
    `teacher_kl` near 0 with `teacher_entropy` near either end.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    momentum = kerassl.layers.CosineMomentum(0.99, total_steps=20_000)
    model = kerassl.DINO(encoder, num_prototypes=4096, momentum=momentum)
    model.compile(kerassl.optimizers.AdamW(5e-4, clipnorm=3.0))
    model.fit(images, batch_size=256, epochs=100)
    ```

    Deviations from facebookresearch/dino: the teacher's temperature changes
    with each step, not each epoch. While the last layer is frozen, the
    optimizer's moments of it grow, as in DINOv2's code; DINO's drops its
    gradients. Views follow `kerassl.augmentation`. Stochastic depth skips whole
    blocks, where the code draws for attention and dense layers apart. kerassl's
    ViTs start with Xavier's bound, the code's dense kernels with truncated
    normals of a standard deviation of 0.02.

    Reference:
        - [Caron et al., 2021](https://arxiv.org/abs/2104.14294)
    """

    metric_names: tuple[str, ...] = ("teacher_entropy", "teacher_kl")
    counts_steps = True
    collapse_advice = (
        "If `teacher_entropy` is near 0, try a smaller center_momentum or a "
        "higher teacher_temperature; if it is near ln(K), a lower one. Else "
        "try a momentum closer to 1, a lower learning rate, or fewer "
        "prototypes."
    )
    default_views: Callable[[int], keras.layers.Layer] = staticmethod(
        augmentation.dino
    )

    def __init__(
        self,
        encoder: Any,
        num_prototypes: int = 65536,
        hidden_dim: int = 2048,
        projection_dim: int = 256,
        head_normalization: bool = False,
        train_scale: bool = False,
        student_temperature: float = 0.1,
        teacher_temperature: Any = 0.04,
        center_momentum: float = 0.9,
        centering: str = "mean",
        momentum: Any = 0.996,
        stochastic_depth: float = 0.0,
        freeze_last_layer_steps: int = 1250,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if student_temperature <= 0 or not 0 <= center_momentum <= 1:
            raise ValueError(
                "`student_temperature` must be above 0 and `center_momentum` "
                "in [0, 1]. Received: "
                f"student_temperature={student_temperature}, "
                f"center_momentum={center_momentum}"
            )
        check_temperature("teacher_temperature", teacher_temperature)
        check_choice("centering", centering, CENTERINGS)
        super().__init__(encoder, augmenter, **kwargs)
        self.num_prototypes = num_prototypes
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.head_normalization = head_normalization
        self.train_scale = train_scale
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.center_momentum = center_momentum
        self.centering = centering
        if centering == "sinkhorn":
            self.collapse_advice = SINKHORN_ADVICE
        self.momentum = momentum
        self.stochastic_depth = stochastic_depth
        if stochastic_depth:
            self.encoders_by_size = {
                size: at_random_depth(encoder, stochastic_depth, seed=i)
                for i, (size, encoder) in enumerate(
                    self.encoders_by_size.items()
                )
            }
        self.freeze_last_layer_steps = freeze_last_layer_steps
        self.taught = self.augmenter.view_names[:TAUGHT]
        sizes = [self._size_of(name) for name in self.taught]
        if len(sizes) < TAUGHT or sizes[0] != sizes[1]:
            raise ValueError(
                f"The teacher of {type(self).__name__} sees the first two "
                "views, which must have one size. The first views of the "
                f"augmenter are {self.taught}, of the sizes {sizes}."
            )
        self.projector = self._head("projector")
        self.momentum_encoder = self.momentum_copy(momentum, names=self.taught)
        self.momentum_projector = MomentumNetwork(self.projector, momentum)
        # Only batch normalization is in training mode in the teacher.
        self.teacher_trains = any(
            isinstance(layer, keras.layers.BatchNormalization)
            for network in (self.encoder, self.projector)
            for layer in all_layers(network)
        )
        self.center = self.add_weight(
            name="center",
            shape=(num_prototypes,),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def _head(self, name: str) -> DINOHead:
        """Returns a new head for the encoder's features or tokens."""
        head = DINOHead(
            self.num_prototypes,
            self.hidden_dim,
            self.projection_dim,
            batch_normalization=self.head_normalization,
            train_scale=self.train_scale,
            dtype=self.dtype_policy,
            name=name,
        )
        head.build((None, self.encoder.output_shape[-1]))
        return head

    def heads(self) -> list[tuple[MomentumNetwork, DINOHead]]:
        """Returns pairs of a teacher's head and the student's."""
        return [(self.momentum_projector, self.projector)]

    @property
    def feature_encoder(self) -> keras.Model:
        """The teacher's encoder."""
        return self.momentum_encoder.network

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Maps all views to the student's logits, and two to the teacher's."""
        outputs = self.encode_views(
            views, head=self.projector, training=training
        )
        large = ops.concatenate([views[name] for name in self.taught])
        teacher_trains = training and self.teacher_trains
        logits = self.momentum_projector(
            self.momentum_encoder_of(self.taught[0])(
                large, training=teacher_trains
            ),
            training=teacher_trains,
        )
        teacher = ops.split(logits, TAUGHT)
        return {
            **outputs,
            **{f"teacher_{k}": x for k, x in zip(self.taught, teacher)},
            **self._centers(
                {"center": (self.center, ops.mean(logits, axis=0))}, training
            ),
        }

    def _centers(
        self, means: dict[str, tuple[Any, Any]], training: bool
    ) -> dict[str, Any]:
        """Returns centers, and moves them in training.

        Args:
            means: dict of name to a center's variable and its batch mean.
            training: bool.

        Returns:
            A dict of name to the center before this batch.
        """
        found = {}
        for name, (variable, mean) in means.items():
            # A copy, since PyTorch assigns in place.
            center = ops.copy(ops.convert_to_tensor(variable))
            if training and self.centering == "mean":
                mean = ops.cast(mean_over_devices(mean), center.dtype)
                share = 1.0 - self.center_momentum
                variable.assign(center + share * (mean - center))
            found[name] = center
        return found

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Predicts the teacher's distributions from the other views."""
        logits = [outputs[f"teacher_{name}"] for name in self.taught]
        teacher = self._probabilities(
            ops.concatenate(logits),
            outputs["center"],
            self._now(self.teacher_temperature),
        )
        student = [outputs[name] for name in self.augmenter.view_names]
        return dino(
            student, ops.split(teacher, TAUGHT), self.student_temperature
        )

    def _probabilities(
        self, logits: Any, center: Any, temperature: Any, counted: Any = None
    ) -> Any:
        """Returns the teacher's distributions over prototypes.

        Args:
            logits: tensor `(N, K)`.
            center: tensor `(K,)`, for `centering="mean"`.
            temperature: float or scalar tensor.
            counted: float tensor `(N,)`, 1 for the rows that take part in
                Sinkhorn's shares, or `None` for all.
        """
        if self.centering == "mean":
            return centered(logits, center, temperature)
        return sinkhorn(logits, temperature, taking_part=counted, gather=gather)

    def _now(self, value: Any) -> Any:
        """Returns a number, or what its schedule gives for this step."""
        if callable(value):
            return value(ops.convert_to_tensor(self.steps))
        return value

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(K): all K prototypes are equally likely.

        While the last layer is frozen the loss is near ln(K), so it returns
        `None`.
        """
        if int(self.steps) < self.freeze_last_layer_steps:
            return None
        return math.log(self.num_prototypes)

    def after_update(self) -> None:
        """Takes back the steps of a frozen last layer; moves the teacher."""
        if self.freeze_last_layer_steps:
            # The teacher's copy has followed nothing yet. The optimizer's
            # moments do grow: after gradients of 0, Adam's correction would
            # make the first steps several times too long.
            is_frozen = ops.convert_to_tensor(self.steps) <= (
                self.freeze_last_layer_steps
            )
            for copies, head in self.heads():
                frozen = copies.network.last.weights
                for weight, copy in zip(head.last.weights, frozen):
                    new = ops.convert_to_tensor(weight)
                    old = ops.convert_to_tensor(copy)
                    weight.assign(ops.where(is_frozen, old, new))
        # The authors' schedule uses the step before the increment.
        update_together(
            [(self.momentum_encoder, self.encoder), *self.heads()],
            ops.convert_to_tensor(self.optimizer.iterations) - 1,
        )
