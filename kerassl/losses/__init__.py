"""Losses: pure float32 functions of arrays, one file a loss."""

from kerassl.losses.nt_xent import nt_xent

__all__ = ["nt_xent"]
