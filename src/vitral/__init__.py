"""Vitral: the complete Vision Transformer, to train, evaluate and explain on your own images.

import vitral
run = vitral.train("photos/", model="S/16", epochs=20)
clf = vitral.load(run)
clf.predict("img.jpg").label
"""

from typing import TYPE_CHECKING, Any

from vitral.version import VERSION as __version__

if TYPE_CHECKING:
    from vitral.classifier import Classifier, create
    from vitral.fitting import fit
    from vitral.loading import load
    from vitral.planning.plan import train
    from vitral.weights.from_module import save

__all__ = ["Classifier", "__version__", "create", "fit", "load", "save", "train"]

_HOMES = {
    "Classifier": "vitral.classifier",
    "create": "vitral.classifier",
    "fit": "vitral.fitting",
    "load": "vitral.loading",
    "save": "vitral.weights.from_module",
    "train": "vitral.planning.plan",
}


def __getattr__(name: str) -> Any:
    """Public names are resolved when first used, so that `import vitral` does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vitral' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
