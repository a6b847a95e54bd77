"""The proof that converted weights are the same network: both libraries on the same images.

The format's library is looked for when the proof is made, and never needed for anything else.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitral.images import augment
from vitral.specs import ModelSpec
from vitral.weights import artifact
from vitral.weights.formats.timm import architecture_of
from vitral.weights.rename import RenameTable

IMAGES = 2
Config = Mapping[str, Any]


class NotComparableError(Exception):
    """Why there is no other library to compare with."""


def difference(
    table: RenameTable,
    spec: ModelSpec,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    config: Config,
) -> tuple[float, float]:
    """max |delta logit| between our network and the format's on random images, and max |logit|.

    `theirs` are under the names that the format writes; `config` is its config.json, empty without.

    Raises NotComparableError where the library is not installed, or cannot build this network.
    """
    builders: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
        "timm": _timm,
        "transformers": _transformers,
        "torchvision": _torchvision,
    }
    if table.format not in builders:
        raise NotComparableError(f"{table.format} publishes no library that runs beside torch")
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        images = torch.randn(IMAGES, spec.channels, *spec.size)
        answer = artifact.network(ours, spec)(images)
        try:
            with _silence():
                other = builders[table.format](spec, theirs, config)(images)
        except NotComparableError:
            raise
        except ImportError as error:
            raise NotComparableError(f"{table.format} is not installed ({error})") from None
        except Exception as error:  # another library, of any version
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            raise NotComparableError(
                f"{table.format} could not run it: {type(error).__name__} {reason}"
            ) from None
    return float((answer - other).abs().max()), float(other.abs().max())


@contextlib.contextmanager
def _silence() -> Any:
    """Other libraries warn and log about what we check ourselves."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _timm(spec: ModelSpec, theirs: Mapping[str, Tensor], config: Config) -> nn.Module:
    augment.transforms()  # makes torchvision importable beside another torch, which timm needs
    timm = importlib.import_module("timm")
    if config:
        name, arguments = config["architecture"], config.get("model_args") or {}
        if config.get("global_pool") and "global_pool" not in arguments:
            arguments = {**arguments, "global_pool": config["global_pool"]}
    else:
        name, arguments = architecture_of(spec)
    if not timm.is_model(name):  # another name could be an address that timm would fetch
        raise NotComparableError(f"timm has no architecture '{name}'")
    arguments = {**arguments, "num_classes": spec.classes}
    if not spec.is_resnet:
        arguments["img_size"] = tuple(spec.size)
    model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    model.load_state_dict(dict(theirs))
    return model.eval()


def _torchvision(spec: ModelSpec, theirs: Mapping[str, Tensor], config: Config) -> nn.Module:
    augment.transforms()
    models = importlib.import_module("torchvision.models")
    model: nn.Module = models.VisionTransformer(
        image_size=spec.size[0],
        patch_size=spec.patch[0],
        num_layers=spec.depth,
        num_heads=spec.heads,
        hidden_dim=spec.width,
        mlp_dim=spec.mlp_width,
        num_classes=spec.classes,
        representation_size=spec.representation or None,
    )
    model.load_state_dict(dict(theirs))
    return model.eval()


def _transformers(
    spec: ModelSpec, theirs: Mapping[str, Tensor], config: Config
) -> Callable[[Tensor], Tensor]:
    augment.transforms()
    transformers = importlib.import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not config:
        raise NotComparableError("there is no config.json")
    kind = getattr(transformers, config["architectures"][0])
    with tempfile.TemporaryDirectory() as place:
        ready = {name: x.contiguous() for name, x in theirs.items()}
        save_file(ready, Path(place) / "model.safetensors", metadata={"format": "pt"})
        (Path(place) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        model, report = kind.from_pretrained(place, output_loading_info=True, dtype=torch.float32)
    pooler = {name for name in report["missing_keys"] if name.startswith("pooler.")}
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]} - pooler):
        raise ValueError(f"it found other names: {', '.join(wrong[:4])}")
    model.eval()

    def answer(images: Tensor) -> Tensor:
        out = model(pixel_values=images)
        if hasattr(out, "logits"):
            found: Tensor = out.logits
        else:
            found = out.last_hidden_state[:, 0] if pooler else out.pooler_output
        return found

    return answer
