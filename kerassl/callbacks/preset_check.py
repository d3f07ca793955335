"""Checks before training that the encoder can be saved as a preset."""

from typing import Any

import keras

from kerassl.presets import check_encoder


class PresetCheck(keras.callbacks.Callback):
    """Stops `fit` at its start if the encoder can't be saved as a preset.

    `kerassl.save_preset` would refuse it only after training.

    Raises:
        PresetError: from `fit`, in one line that names the unsupported layer.

    Example:
    ```python
    model.fit(images, callbacks=[kerassl.callbacks.PresetCheck()])
    ```
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks the model's encoder."""
        check_encoder(self.model)
