"""What trains a model: reading data, the step, monitors."""
