"""The trainings that `scripts/train.py` runs."""
