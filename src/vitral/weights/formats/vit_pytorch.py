"""vit-pytorch's state dicts (ViT of 2021 and of today, SimpleViT): no configuration at all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from vitral.specs import ImageSpec, ModelSpec
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Config, Format, NotComparableError, Oracle, Tensors
from vitral.weights.rename import Layout, RenameTable


class VitPytorch(Format):
    """The format of vit_pytorch.ViT and vit_pytorch.SimpleViT."""

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Take Vitral's own preprocessing, as vit-pytorch prescribes none."""
        return ImageSpec(size=size)

    def assumed_preprocessing(self, source: Source) -> str:
        """Say that it prescribes none."""
        return "vit-pytorch prescribes no preprocessing: Vitral's own is assumed"

    def guesses(self, table: RenameTable, source: Source, spec: ModelSpec) -> list[str]:
        """Say which sides of a patch, heads and pooling were taken."""
        taken = [f"model.patch={spec.patch[0]}x{spec.patch[1]}", f"model.heads={spec.heads}"]
        taken += [f"model.pool={spec.pool}"] if spec.class_token else []
        return [
            f"no tensor tells all of {', '.join(taken[:-1])} and {taken[-1]}; they are taken, and "
            "--set model.NAME=VALUE says otherwise",
        ]

    def refuse_unexpected(self, keys: Sequence[str]) -> str:
        """Refuse the form of 2020, which scaled attention by the width of a token."""
        if any(key.startswith("transformer.layers.0.0.fn.fn.") for key in keys):
            return (
                "is of a vit-pytorch of 2020, which scaled the products of queries and keys by the "
                "width of a token and not of a head; Vitral has no such network."
            )
        return ""

    def table_for(self, spec: ModelSpec) -> str:
        """Choose SimpleViT's names for fixed positions."""
        simple = spec.positions == "sincos2d"
        return "vit_pytorch_simple" if simple else "vit_pytorch_vit"

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Iterator[str]:
        """Refuse what no release of it has together."""
        if spec.pool == "mean" and spec.class_token:
            yield "vit-pytorch averages the class token with the patches (model.pool)"
        if not spec.classes and _old(spec):
            yield "vit-pytorch's last norm stood in its head, and here is none (model.classes)"
        if not spec.patch_norms and spec.pool != "cls" and spec.pool_norm == "before":
            yield "vit-pytorch without norms around the patch projection norms after pooling"
        if table.name == "vit_pytorch_simple":
            return
        if not spec.class_token and _old(spec):
            yield "vit-pytorch had a class token in the form of 2021 (model.class_token)"
        alone = spec.heads == 1 and spec.attention_width == spec.width
        if alone == spec.out_projection:
            yield (
                "vit-pytorch has no map after a single head as wide as a token, and one after all "
                "others (model.out_projection)"
            )

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """Take today's names, or those of the release that had such a network."""
        layout = super().layout(table, spec)
        used = [] if spec.patch_norms else ["plain_patches"]
        if table.name == "vit_pytorch_simple":
            used += ["head_norm"] if spec.pool_norm == "after" else []
        else:
            used += ["wrapped", "head_norm"] if _old(spec) else []
            layout = replace(layout, wide=spec.pool == "mean_all" or _old(spec))
        return replace(layout, variants=tuple(used))

    def oracle(self, spec: ModelSpec, tensors: Tensors, config: Config) -> Oracle:
        """Build the ViT or SimpleViT of the release that is installed, if it has such a network."""
        library = importlib.import_module("vit_pytorch")
        sizes = {
            "image_size": spec.size,
            "patch_size": spec.patch,
            "num_classes": spec.classes,
            "dim": spec.width,
            "depth": spec.depth,
            "heads": spec.heads,
            "mlp_dim": spec.mlp_width,
            "channels": spec.channels,
            "dim_head": spec.attention_width // spec.heads,
        }
        if spec.positions == "sincos2d":
            model: nn.Module = library.SimpleViT(**sizes)
        else:
            model = library.ViT(**sizes, pool="cls" if spec.pool == "cls" else "mean")
        own = model.state_dict()
        same = own.keys() == tensors.keys()
        if not same or any(own[name].numel() != tensors[name].numel() for name in own):
            raise NotComparableError(
                "the vit-pytorch that is installed is of a release with other tensors"
            )
        # releases differ in a leading axis of length 1
        model.load_state_dict({name: x.view_as(own[name]) for name, x in tensors.items()})
        if spec.classes:
            return model.eval()
        pooled = (lambda x: x[:, 0]) if spec.pool == "cls" else (lambda x: x.mean(1))
        return lambda images: pooled(model.eval()(images))


def _old(spec: ModelSpec) -> bool:
    """Whether it is of the years in which the last norm stood in the head."""
    return not spec.patch_norms or (spec.pool != "cls" and spec.pool_norm == "after")


format = VitPytorch()
