"""Regularization methods: a term over the batch keeps the outputs spread."""
