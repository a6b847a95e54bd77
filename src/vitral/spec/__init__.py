"""Frozen, validated descriptions of a model and of its images; no torch is imported here."""

from vitral.spec.calibration import Calibration
from vitral.spec.image import ImageSpec
from vitral.spec.model import ModelSpec
from vitral.spec.noise import Noise
from vitral.spec.resnet import ResNetSpec

__all__ = ["Calibration", "ImageSpec", "ModelSpec", "Noise", "ResNetSpec"]
