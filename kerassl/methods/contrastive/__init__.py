"""Contrastive methods: find the other view of an image among other images."""
