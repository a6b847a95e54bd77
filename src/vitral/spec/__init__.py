"""Frozen, validated descriptions of a model and of its images; no torch is imported here."""

from vitral.spec.image import ImageSpec

__all__ = ["ImageSpec"]
