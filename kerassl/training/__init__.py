"""The training loop's parts: data reading, the step, monitors."""
