"""Says before training that no preset could be made of the encoder."""

from typing import Any

import keras


class PresetCheck(keras.callbacks.Callback):
    """Refuses, as `fit` begins, an encoder of which no preset can be made.

    `kerassl.save_preset` would refuse it after training.

    Raises:
        PresetError: from `fit`, in one line that names the layer in the way.

    Example:
    ```python
    model.fit(images, callbacks=[kerassl.callbacks.PresetCheck()])
    ```
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Looks at the model's encoder."""
        from kerassl.presets import check_encoder

        check_encoder(self.model)
