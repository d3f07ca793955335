"""Predictive methods: recognize how an image was transformed."""
