"""The arithmetic of ModelSpec, for every model that is listed."""

import torch

from vitral.catalog import model, names
from vitral.model import ViT
from vitral.specs import Dropouts, counts


def test_every_listed_row_counts_what_the_network_has() -> None:
    for name in names():
        spec = model(name)
        with torch.device("meta"):
            network = ViT(spec, Dropouts())
        assert counts.parameters(spec) == sum(p.numel() for p in network.parameters()), name
