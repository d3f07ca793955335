"""Distillation: the encoder learns from one that is trained already."""
