"""What one image looked like to the model, and where the model looked.

for explanation in explain(model, images, classes=card.classes):
    explanation.save("explained.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitral.errors import ModelError, UsageError
from vitral.explanation import figure
from vitral.explanation.attention import Pool, heatmap, rollout
from vitral.explanation.panes import Picture, enlarge, overlay, png
from vitral.spec import ImageSpec
from vitral.weights import storage

_SHARPEST = 448  # pixels of the shorter side from which a pane and its leading are drawn crisply


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """One image through one model.

    Attributes:
        picture: uint8 (H, W, 3), the image as the model received it.
        grid: (rows, columns) of patches.
        attention: (blocks, heads, N, N) float32, softmax rows, prefix tokens first.
        rollout: (N, N) float32, attention rollout with the residual.
        heat: (rows, columns), the rollout from the model's output to the patches; sums to 1.
        heads: (heads, rows, columns), the same for each head of the last block; each sums to 1.
        probabilities: (K,); classes: K names; empty for a model without a head.
    """

    picture: Picture = field(repr=False)
    grid: tuple[int, int]
    attention: NDArray[np.float32] = field(repr=False)
    rollout: NDArray[np.float32] = field(repr=False)
    heat: NDArray[np.float32] = field(repr=False)
    heads: NDArray[np.float32] = field(repr=False)
    probabilities: NDArray[np.float32] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The most probable classes and their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def picture_png(self) -> bytes:
        """The image as the model received it, as PNG."""
        return png(self.picture)

    def overlay_png(self) -> bytes:
        """The picture as a window lit by `heat`, as PNG, large enough for its leading."""
        return png(overlay(enlarge(self.picture, _SHARPEST // 2), self.heat))

    def save(self, path: str | Path) -> Path:
        """Write the figure; returns `path`.

        A name ending in .png or .svg is that file. Any other name is a folder, made if need be,
        that gets explanation.png, explanation.svg and overlay.png.
        Raises UsageError for another kind of picture, MachineError when it cannot be written.
        """
        path = Path(path)
        match path.suffix.lower():
            case ".png":
                _write(path, figure.render(self, "png"))
            case ".svg":
                _write(path, figure.render(self, "svg"))
            case ".jpg" | ".jpeg" | ".pdf" | ".gif" | ".webp" | ".tif" | ".tiff" | ".bmp" as suffix:
                raise UsageError(f"{path}: figures are .png or .svg (or a folder), not {suffix}.")
            case _:
                _write(path / "explanation.png", figure.render(self, "png"))
                _write(path / "explanation.svg", figure.render(self, "svg"))
                _write(path / "overlay.png", self.overlay_png())
        return path


def explain(
    model: nn.Module,
    images: Tensor,
    image_spec: ImageSpec | None = None,
    classes: Sequence[str] = (),
) -> list[Explanation]:
    """Explain each image by the attention that led to the answer.

    Args:
        model: a vision transformer, or a hybrid with one; it is used in evaluation mode.
        images: float (B, 3, H, W), normalised as the model expects them.
        image_spec: how they were normalised, to show them as pictures again; default ImageSpec().
        classes: K names; "class 0", "class 1", ... without.

    Raises ModelError for a network without attention.
    """
    network: Any = model  # a ViT; nn.Module knows nothing of what one offers
    if network.spec.depth == 0:
        raise ModelError(
            "This model is a ResNet without a transformer, so it has no attention to explain; "
            "use a ViT or a hybrid such as 'R50+B/16'."
        )
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(images).float().cpu()
            weights = [block.float().cpu() for block in network.attention_weights(images)]
    finally:
        model.train(training)
    count: int = network.spec.classes
    names = tuple(classes) or tuple(f"class {i}" for i in range(count))
    if len(names) != count:
        raise UsageError(f"The model has {count} classes, but {len(names)} names were given.")
    grid: tuple[int, int] = network.spec.grid
    prefix: int = network.num_prefix
    # a "map" head weighs the patches by a probe of its own; their mean stands in for it here
    pool: Pool = "cls" if network.spec.pool == "cls" else "mean"
    rolled = rollout(weights)
    heat = heatmap(rolled, grid, prefix, pool)
    heads = heatmap(weights[-1], grid, prefix, pool)
    attention = torch.stack(weights, dim=1)
    probabilities = logits[:, :count].softmax(dim=1)
    pictures = as_pictures(images, image_spec or ImageSpec())
    return [
        Explanation(
            picture=pictures[i],
            grid=grid,
            attention=attention[i].numpy(),
            rollout=rolled[i].numpy(),
            heat=heat[i].numpy(),
            heads=heads[i].numpy(),
            probabilities=probabilities[i].numpy(),
            classes=names,
        )
        for i in range(len(images))
    ]


def as_pictures(images: Tensor, image_spec: ImageSpec) -> NDArray[np.uint8]:
    """uint8 (B, H, W, 3) pictures from normalised float (B, C, H, W); C is 1 or 3."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
        for values in (image_spec.mean, image_spec.std)
    )
    pixels = (images.detach().float().cpu() * std + mean).clamp(0, 1) * 255
    pictures: NDArray[np.uint8] = pixels.round().byte().permute(0, 2, 3, 1).numpy()
    return pictures[..., :3] if pictures.shape[-1] >= 3 else pictures[..., :1].repeat(3, axis=-1)


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    storage.write_file(path, write)
