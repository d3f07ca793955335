"""Generative methods: paint what is hidden."""

from kerassl.methods.generative.context_encoder import ContextEncoder
from kerassl.methods.generative.mae import MAE

__all__ = ["MAE", "ContextEncoder"]
