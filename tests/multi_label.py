"""A multi-label model, drawn rather than trained."""

from pathlib import Path

import torch

from vitral import catalog
from vitral.images import preprocess
from vitral.model import build
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card


def multi_label_artifact(photos: Path, folder: Path) -> Path:
    """An artifact of four classes a to d that gives each to about half of the photos."""
    spec, images = catalog.model("mu/8", size=32, classes=4), ImageSpec(size=(32, 32))
    torch.manual_seed(0)
    model = build(spec).eval()
    paths = sorted(photos.rglob("*.jpg"))
    with torch.no_grad():
        seen = model.representation(
            torch.stack([preprocess.tensor(path.read_bytes(), images) for path in paths])
        )
        assert model.head is not None
        model.head.weight.copy_(torch.randn(4, spec.width) / seen.std(dim=0).clamp(min=1e-6))
        ranked = (seen @ model.head.weight.T).sort(dim=0).values
        middle = ranked[len(paths) // 4 : 3 * len(paths) // 4]
        # where the photos leave the widest gap, so that no rounding decides about one
        widest = middle.diff(dim=0).argmax(dim=0, keepdim=True)
        model.head.bias.copy_(-(middle.gather(0, widest) + middle.gather(0, widest + 1))[0] / 2)
    card = Card(model=spec, images=images, classes=tuple("abcd"), labels="several")
    artifact.save(folder, model.state_dict(), card)
    return folder
