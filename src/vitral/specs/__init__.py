"""Frozen, validated descriptions of a model and of its images; no torch is imported here."""

from vitral.specs.calibration import Calibration
from vitral.specs.dropouts import Dropouts
from vitral.specs.image import ImageSpec
from vitral.specs.model import ModelSpec
from vitral.specs.resnet import ResNetSpec

__all__ = ["Calibration", "Dropouts", "ImageSpec", "ModelSpec", "ResNetSpec"]
