"""An artifact from a network that somebody trained in a loop of their own.

    vitral.save(model, classes=["cat", "dog"], images={"mean": ..., "std": ...}, to="pets")

The module is recognised by its state_dict, as a checkpoint file is, and the artifact's network must
answer as the module does before anything is written.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitral.errors import ModelError, UsageError, WeightsError
from vitral.storage import files
from vitral.weights import artifact
from vitral.weights import one_logit as one_logits
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.timm import POOLS
from vitral.weights.image_settings import image_spec
from vitral.weights.read import Weights, read_source

IMAGES = 2  # random ones, on which both networks answer
TOLERANCE = 1e-3  # of the largest logit; a wrong choice shows far above it, rounding far below
WRAPPERS = {"_orig_mod", "module"}  # of torch.compile; of DataParallel, DDP and averages
HEADS = ("num_heads", "num_attention_heads", "heads")
SIZES = ("img_size", "image_size")


def save(
    model: nn.Module,
    classes: Sequence[str] | Mapping[Any, Any],
    images: Any,
    to: str | os.PathLike[str],
    *,
    labels: Literal["one", "several"] = "one",
    changes: Sequence[str] = (),
) -> Path:
    """Write a trained network, its class names and its preprocessing as an artifact.

    The module stays as it is, on its device and in its mode.

    Args:
        model: Vitral's, or a ViT of timm, torchvision, transformers, vit-pytorch or of the authors'
            code, alone or inside a module of your own whose forward gives logits (B, classes).
        classes: names in the order of the logits; or id2label; or class_to_idx. A head with one
            logit has two, the negative class first, or only the positive one.
        images: an ImageSpec or a dictionary of its fields, timm's data configuration, an image
            processor of transformers, or torchvision's evaluation transform.
        to: a new folder.
        labels: "several" where the classes do not exclude each other (sigmoids).
        changes: what neither tensors nor modules tell, such as "model.heads=6" or
            "weights.part=ema_model".

    Returns the folder, which `vitral.load` and every verb take. Raises WeightsError for a network
    that Vitral does not have or that answers otherwise, UsageError for class names or preprocessing
    that do not fit it, and for a folder that exists. Nothing is written then.
    """
    target = Path(to)
    files.refuse_existing(target)
    plain = _plain(model)
    own = _copied(plain)
    state = own.state_dict()
    source = Source(
        path=Path(type(plain).__name__),
        tensors={name: x for name, x in state.items() if isinstance(x, Tensor)},
        config=_config(own),
        metadata=getattr(state, "_metadata", {}),
    )
    told = [*_facts(own), f"weights.labels={labels}", *changes]
    weights = read_source(source, size=_size(own), changes=told)
    names = _names(classes, weights)
    spec = image_spec(images, weights.card.model.size)
    if len(spec.mean) != weights.card.model.channels:
        raise UsageError(
            f"The network reads {weights.card.model.channels} channels, and images.mean has "
            f"{len(spec.mean)} values; there is one for each."
        )
    difference, largest = _difference(own, weights)
    if not difference <= TOLERANCE * max(largest, 1.0):
        raise WeightsError(
            f"{source.path} answers otherwise than Vitral's {weights.card.model.name} with its "
            f"tensors: max |delta logit| {difference:.2g} of {largest:.2g}. Say what no tensor "
            "tells, as in changes=['model.pool=mean', 'model.gelu=erf']; or its forward does "
            "more than the network and its head. Nothing was written."
        )
    record = {
        "module": f"{type(plain).__module__}.{type(plain).__qualname__}",
        "format": weights.format,
        "difference": difference,
        "largest": largest,
        "notes": list(weights.notes),
    }
    card = replace(weights.card, classes=names, images=spec, made_by={"saved": record})
    artifact.save(target, weights.tensors, card)
    return target


def _plain(model: nn.Module) -> nn.Module:
    """The network without what runs it in parallel or compiled; ModelError where parts are away."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"`model` is a torch.nn.Module, not a {type(model).__name__}.")
    while type(model).__module__.startswith("torch.") and model._modules.keys() <= WRAPPERS:
        inner = next(iter(model._modules.values()), None)
        if inner is None:
            break
        model = inner
    kinds = {type(each).__name__ for each in model.modules()}
    values = [*model.parameters(), *model.buffers()]
    if any("FullyShardedDataParallel" in kind for kind in kinds) or any(
        type(x).__name__ == "DTensor" for x in values
    ):
        raise ModelError(
            "The network is sharded over processes (FSDP). Gather its whole state_dict first "
            "(torch.distributed.checkpoint.state_dict with full_state_dict=True), load it into a "
            "plain network and save that."
        )
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise ModelError(
            "The network has low-rank updates beside its weights. Merge them first: "
            "model.merge_and_unload() in peft gives the plain network."
        )
    homes = {type(each).__module__ for each in model.modules()}
    packed = any("quantized" in home or home.startswith("bitsandbytes") for home in homes)
    if packed or any(x.is_quantized or x.dtype in (torch.int8, torch.uint8) for x in values):
        raise ModelError(
            "The network is quantised: its weights are rounded to a few bits. Save the one that it "
            "was made from."
        )
    if any(x.is_meta for x in values):
        raise ModelError("The network is on the meta device: it has shapes and no weights.")
    return model


def _copied(model: nn.Module) -> nn.Module:
    """The network in float32 on the CPU, in evaluation mode; the one that was given stays."""
    try:
        return copy.deepcopy(model).cpu().float().eval()
    except Exception as error:  # whatever a module holds beside its weights
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({str(error).splitlines()[0][:100]}). Give "
            "the network itself, without a trainer or data around it."
        ) from None


def _config(model: nn.Module) -> dict[str, Any] | None:
    """What transformers keeps beside a network, as its config.json has it."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "to_dict") and hasattr(config, "model_type"):
            return dict(config.to_dict())
    return None


def _facts(model: nn.Module) -> Iterator[str]:
    """What modules tell of a network where its tensors do not, as --set takes it."""
    heads: set[int] = set()
    eps: set[float] = set()
    gelus: set[str] = set()
    for module in model.modules():
        numbers = (getattr(module, name, None) for name in HEADS)
        heads |= {number for number in numbers if type(number) is int}
        if isinstance(module, nn.LayerNorm):
            eps.add(module.eps)
        if isinstance(module, nn.GELU):
            gelus.add(module.approximate)
        pool = getattr(module, "global_pool", None)
        if isinstance(pool, str) and pool in POOLS:
            yield f"model.pool={POOLS[pool]}"
        yield from _of_vit_pytorch(module)
    if len(heads) == 1:
        yield f"model.heads={heads.pop()}"
    if len(eps) == 1:
        yield f"model.norm_eps={eps.pop()}"
    if len(gelus) == 1:
        yield f"model.gelu={'tanh' if gelus == {'tanh'} else 'erf'}"


def _of_vit_pytorch(module: nn.Module) -> Iterator[str]:
    """The sides of a patch, and the pooling, which vit-pytorch's tensors do not tell."""
    sides = getattr(module, "axes_lengths", None)
    if isinstance(sides, Mapping) and {"p1", "p2"} <= sides.keys():
        yield f"model.patch=[{sides['p1']},{sides['p2']}]"
    averages = hasattr(module, "to_patch_embedding") and getattr(module, "pool", None) == "mean"
    if averages and hasattr(module, "cls_token"):
        yield "model.pool=mean_all"


def _size(model: nn.Module) -> tuple[int, int] | None:
    """(height, width) in pixels, where a module says it; the innermost knows it best."""
    found = None
    for module in model.modules():
        for name in SIZES:
            size = getattr(module, name, None)
            sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
            if len(sides) == 2 and all(type(side) is int for side in sides):
                found = (sides[0], sides[1])
    return found


def _names(classes: Sequence[str] | Mapping[Any, Any], weights: Weights) -> tuple[str, ...]:
    """One name for each logit; UsageError that says how many there are of both."""
    if isinstance(classes, str):
        raise UsageError(f"`classes` is a list of names, not the text {classes!r:.40}.")
    if isinstance(classes, Mapping):
        values = list(classes.values())
        if all(type(value) is int for value in values):  # class_to_idx
            classes = {value: name for name, value in classes.items()}
        keyed = {str(key): name for key, name in classes.items()}
        names = [keyed.get(str(i)) for i in range(len(values))]
    else:
        names = list(classes)
    if not all(isinstance(name, str) and name for name in names):
        raise UsageError(
            "`classes` are names in the order of the logits, or a dictionary between names and the "
            f"numbers 0 to {len(names) - 1}; not {classes!r:.60}."
        )
    told = tuple(str(name) for name in names)
    if weights.one_logit and len(told) == 1:
        told = one_logits.names_of_two(told)
    if len(set(told)) < len(told):
        twice = next(name for name in told if told.count(name) > 1)
        raise UsageError(f"`classes` has '{twice}' twice; each logit has a name of its own.")
    if len(told) != weights.card.model.classes:
        raise UsageError(
            f"The network has {weights.card.model.classes} logits, and `classes` names "
            f"{len(told)}; there is one name for each."
        )
    return told


def _difference(model: nn.Module, weights: Weights) -> tuple[float, float]:
    """Max |delta logit| between the module and the artifact's network, and max |logit|."""
    stored = weights.as_stored
    spec = stored.card.model
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        images = torch.randn(IMAGES, spec.channels, *spec.size)
        try:
            answer = _logits(model(images))
        except Exception as error:  # a forward of anybody's
            lines = str(error).strip().splitlines()
            raise ModelError(
                f"{type(model).__name__} cannot answer images of shape {tuple(images.shape)} "
                f"({type(error).__name__}: {lines[0][:100] if lines else ''}). Give a module whose "
                "forward takes images and returns logits."
            ) from None
        expected = artifact.network(stored.tensors, spec)(images)
    if answer is None or answer.shape != expected.shape:
        found = "no tensor" if answer is None else f"shape {tuple(answer.shape)}"
        raise WeightsError(
            f"{type(model).__name__} answers with {found}, and the network with its head gives "
            f"{tuple(expected.shape)}. Give a module whose forward returns logits (B, classes)."
        )
    return float((answer.float() - expected).abs().max()), float(answer.abs().max())


def _logits(answer: Any) -> Tensor | None:
    """The logits of what a forward returns: a tensor, an output with logits, or the first."""
    logits = answer.get("logits") if isinstance(answer, Mapping) else None
    logits = getattr(answer, "logits", logits)
    if logits is None and isinstance(answer, list | tuple) and answer:
        logits = answer[0]
    found = answer if isinstance(answer, Tensor) else logits
    return found if isinstance(found, Tensor) else None
