"""Attention as it runs during a step."""

from typing import Any

import keras
from keras import ops

from kerassl.distributed import device_count


class MultiHeadAttention(keras.layers.MultiHeadAttention):
    """Keras's attention, over an even number of tokens on JAX.

    In training JAX refuses cuDNN's attention over an odd number of tokens, such
    as a ViT's 197: its check is meant for biases, and takes a placeholder for
    one. Keras then logs an error and computes without cuDNN. A token that
    nothing attends to makes their number even. No model contains this layer:
    `lent` swaps it in.
    """

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        *args: Any,
        training: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Attends as Keras does, with one more token where that helps."""
        # Masks and biases need Keras; so does the traced `training` of a layer
        # that is recomputed.
        given = (key, *args, *kwargs.values())
        if (
            training is True
            and all(each is None or each is False for each in given)
            and self._is_plain(query, value)
        ):
            found = self._with_one_more(query, value)
            if found is not None:
                return found
        return super().call(
            query, value, key, *args, training=training, **kwargs
        )

    def _is_plain(self, query: Any, value: Any) -> bool:
        if len(query.shape) != 3 or query.shape[1:2] != value.shape[1:2]:
            return False
        config = self.get_config()
        return (
            query.shape[1] % 2 == 1
            and not self.dropout
            and not config.get("use_gate")
            and not config.get("sliding_window")
            and keras.config.is_flash_attention_enabled() is not False
            # Each device would need the lengths of its own part of the batch.
            and device_count() == 1
        )

    def _with_one_more(self, query: Any, value: Any) -> Any:
        """Returns cuDNN's result; `None` where there is none."""
        import jax

        batch, tokens = query.shape[:2]
        projected = (
            self.query_dense(query),
            self.key_dense(value),
            self.value_dense(value),
        )
        try:
            outputs = jax.nn.dot_product_attention(
                *(
                    ops.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))
                    for x in projected
                ),
                key_value_seq_lengths=ops.full((batch,), tokens, "int32"),
                implementation="cudnn",
            )
        except (NotImplementedError, RuntimeError, ValueError):
            return None  # No cuDNN, or float32, or another width of heads.
        return self.output_dense(outputs[:, :tokens])
