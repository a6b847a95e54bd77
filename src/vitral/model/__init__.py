"""The network: torch only. It has never heard of files, recipes, HTTP or datasets."""

import torch

from vitral.errors import SpecError
from vitral.model.initialise import initialise
from vitral.model.layers import StepSamples
from vitral.model.vit import Features, PatchCorruption, ViT
from vitral.specs import Dropouts, ModelSpec

__all__ = ["Features", "PatchCorruption", "StepSamples", "ViT", "build"]


def build(spec: ModelSpec, dropouts: Dropouts | None = None, *, checkpointing: bool = False) -> ViT:
    """Build the network of a spec, initialised as in the authors' code, on torch's default device.

    The spec decides the weights; the dropouts (none by default) are for training alone, and refused
    for a ResNet. `checkpointing` recomputes blocks in the backward pass. Under
    `torch.device("meta")` nothing is allocated; `to_empty` and `initialise` make it real.
    """
    dropouts = dropouts or Dropouts()
    if spec.is_resnet and dropouts != Dropouts():
        raise SpecError(
            f"{spec.name} is a ResNet without blocks; it takes no dropout or drop path."
        )
    with torch.device("meta"):  # torch's own first values would be drawn only to be replaced
        network = ViT(spec, dropouts, checkpointing=checkpointing)
    network.to_empty(device=torch.empty(0).device)  # the default; torch 2.6 tells it so alone
    initialise(network)
    return network
