"""Vitral's own state_dict, as `torch.save(model.state_dict(), path)` keeps it.

The specification travels in what torch keeps of each module (`state_dict()._metadata`); a file
without it, such as safetensors, is read by shapes and the catalogue's rules like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitral.errors import SpecError, WeightsError
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Config, Format
from vitral.weights.rename import RenameTable

# what the tensors tell better: a head may have been exchanged since
OF_THE_TENSORS = ("classes", "representation")


class Vitral(Format):
    """The format of our own names."""

    no_library = "these are Vitral's own tensors, and they are taken as they are"

    def detect(self, config: Config) -> bool:
        """Tell what `config_of` made."""
        return "spec" in config and "model_type" not in config and "architecture" not in config

    def config_of(self, source: Source) -> Config | None:
        """Find the specification that the state_dict carries; None where none or several do."""
        parts = [part for part in source.metadata.values() if isinstance(part, Mapping)]
        specs = [part["spec"] for part in parts if isinstance(part.get("spec"), Mapping)]
        return {"spec": specs[0]} if len(specs) == 1 else None

    def facts(self, config: Config) -> dict[str, Any]:
        """Read the fields of the specification."""
        try:
            spec = ModelSpec.from_dict(dict(config["spec"]))
        except (SpecError, TypeError) as error:
            raise WeightsError(f"The specification in the state_dict is damaged: {error}") from None
        return {name: x for name, x in spec.to_dict().items() if name not in OF_THE_TENSORS}

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Take Vitral's own."""
        return ImageSpec(size=size)

    def assumed_preprocessing(self, source: Source) -> str:
        """Say that a state_dict holds none."""
        return "a state_dict does not say how images were prepared: Vitral's own is assumed"

    def guesses(self, table: RenameTable, source: Source, spec: ModelSpec) -> list[str]:
        """Say what was taken where no specification came along."""
        if source.config is not None or spec.is_resnet:
            return []
        return [
            f"no specification came with the tensors: model.gelu={spec.gelu}, "
            f"model.heads={spec.heads} and epsilons are those of the paper's models; --set "
            "model.NAME=VALUE and --size say otherwise"
        ]

    def table_for(self, spec: ModelSpec) -> str:
        """Choose by whether there is a transformer."""
        return "vitral_resnet" if spec.is_resnet else "vitral_vit"


format = Vitral()
