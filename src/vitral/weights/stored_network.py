"""The network of an artifact that answers without torch, until somebody looks into the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.errors import WeightsError
from vitral.weights import digest

if TYPE_CHECKING:
    from vitral.model import ViT


@dataclass(slots=True)
class StoredNetwork:
    """The network of an artifact, built by torch when somebody first looks into it.

    Attributes:
        folder: the artifact.
        digest: of the weights that it had when it was loaded.
    """

    folder: Path
    digest: str
    _model: ViT | None = field(default=None, repr=False)

    def module(self) -> ViT:
        """Build the network; WeightsError where the artifact was replaced since."""
        from vitral.weights import artifact  # noqa: PLC0415 - it brings torch

        if self._model is None:
            model, card = artifact.load(self.folder)
            if digest.of_artifact(self.folder, card.model) != self.digest:
                raise WeightsError(
                    f"{self.folder} was replaced since it was loaded; load it again."
                )
            self._model = model
        return self._model
