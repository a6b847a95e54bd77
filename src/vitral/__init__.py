"""Vitral: the complete Vision Transformer."""
