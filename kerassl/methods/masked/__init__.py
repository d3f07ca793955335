"""Masked modeling: predict the hidden part of an image from the rest."""
