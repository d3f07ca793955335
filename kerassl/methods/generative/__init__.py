"""Generative methods: paint the hidden part of an image."""
