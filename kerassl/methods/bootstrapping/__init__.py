"""Bootstrapping methods: predict the other view, without negatives."""
