"""MAE's, DINO's and DINOv2's recorded networks under their released names, through the converter.

Exact in float64: the recordings were computed in it from weights that bfloat16 holds.
"""

import json
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import same, store, stored
from vitral.model import ViT
from vitral.weights import artifact
from vitral.weights.convert import convert

FOLDER = golden.GOLDEN / "selfsup"
BACKBONE = ("cls_token", "pos_embed", "mask_token", "register_tokens", "patch_embed.", "blocks.")
HEADS = ("norm.", "fc_norm.", "head.", "decoder_")


def recorded(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the recorded tensors of the authors' code are not at {path}")
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files if file[key].dtype.kind in "fiub"}
        config = json.loads(str(file["config"]))
    return config, {key: torch.from_numpy(array) for key, array in arrays.items()}


def of_names(values: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The parameters of one network of a recording."""
    return {
        key.removeprefix(prefix): x
        for key, x in values.items()
        if key.startswith(prefix) and key.removeprefix(prefix).startswith(BACKBONE + HEADS)
    }


def there_and_back(tmp_path: Path, file: dict[str, Tensor], to: str, **options: Any) -> ViT:
    """Our network in float64, once the file came back as it was."""
    first = store(tmp_path / "first.pth", file)
    done = convert(first, tmp_path / "ours", **options)
    assert done.exact and done.format == to
    assert to == "dino" or done.difference["timm"] < 1e-5
    convert(tmp_path / "ours", tmp_path / "again.pth", to=to)
    assert same(stored(tmp_path / "again.pth"), file)
    values, card = artifact.load_tensors(tmp_path / "ours")
    return artifact.network({name: x.double() for name, x in values.items()}, card.model)


def told(config: dict[str, Any], **more: object) -> dict[str, Any]:
    side, heads = config.get("img_size", config.get("img")), config.get("num_heads")
    changes = {"heads": heads or config["heads"], **more}
    return {
        "size": (side, side),
        "changes": [f"model.{name}={value}" for name, value in changes.items()],
    }


@pytest.mark.parametrize("name", ["mae_normpix_32", "mae_pixels_30"])
def test_an_encoder_that_was_trained_beside_a_decoder(tmp_path: Path, name: str) -> None:
    """As mae_visualize_*.pth hold both; mae_pretrain_*.pth hold the first part of it."""
    config, values = recorded(name)
    file = of_names(values)
    assert sum(key.startswith("decoder_") for key in file) > 10
    network = there_and_back(tmp_path, file, "timm", **told(config))
    tokens = network.features(values["x"].double(), [0]).per_block[0]
    order = values["noise"].argsort(1)[:, : values["latent64"].shape[1] - 1]
    chosen = torch.cat([torch.zeros(len(order), 1, dtype=torch.int64), order + 1], 1)
    kept = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
    with torch.inference_mode():
        for block in network.blocks:
            kept = block(kept)
        latent = network.norm(kept)
    assert values["latent64"].std() > 0.1
    assert (latent - values["latent64"]).abs().max() < 1e-11


def test_the_encoder_alone_is_the_same_encoder(tmp_path: Path) -> None:
    config, values = recorded("mae_normpix_32")
    file = of_names(values)
    alone = {
        key: x for key, x in file.items() if not key.startswith("decoder_") and key != "mask_token"
    }
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = there_and_back(tmp_path / "a", file, "timm", **told(config))
    encoder = there_and_back(tmp_path / "b", alone, "timm", **told(config))
    assert whole.spec == encoder.spec
    assert same(whole.state_dict(), encoder.state_dict())


def test_a_fine_tuned_mae_norms_the_mean_of_the_patches(tmp_path: Path) -> None:
    config, values = recorded("mae_finetune_probe")
    network = there_and_back(tmp_path, of_names(values), "timm", **told(config))
    assert (network.spec.pool, network.spec.pool_norm) == ("mean", "after")
    with torch.inference_mode():
        images = values["x"].double()
        assert (network(images) - values["logits64"]).abs().max() < 1e-11
        features = network.representation(images)
    assert (features - values["features64"]).abs().max() < 1e-11


def test_a_released_dino_at_another_size(tmp_path: Path) -> None:
    """The last attention, the class tokens of two blocks, by its own rule for positions."""
    config, values = recorded("dino_eval")
    network = there_and_back(tmp_path, of_names(values), "timm", **told(config, resample="dino"))
    image = values["image"].double()
    with torch.inference_mode():
        attention = network.attention_weights(image, [1], any_size=True)[0]
        seen = network.features(image, [1], any_size=True)
        first = network.norm(seen.per_block[1])[:, 0]
    assert (attention - values["attention64"]).abs().max() < 1e-11
    assert (seen.cls - values["cls64"]).abs().max() < 1e-11
    assert (seen.patches.mean(1) - values["last_patch_mean64"]).abs().max() < 1e-11
    assert (torch.stack([first, seen.cls]) - values["last2_cls64"]).abs().max() < 1e-11


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_a_dino_under_its_projection_head(tmp_path: Path, which: str) -> None:
    """The names that its training saves; the head goes back as it came."""
    config, values = recorded("dino_multicrop_32")
    prefix = f"{which}:"
    file = {key.removeprefix(prefix): x for key, x in values.items() if key.startswith(prefix)}
    network = there_and_back(tmp_path, file, "dino", **told(config))
    assert network.spec.resample == "dino" and not network.spec.classes
    if which == "student":
        return
    out = torch.cat([projected(network, file, values[f"crops:0:{i}"].double()) for i in (0, 1)])
    assert (out - values["teacher_out64"][0]).abs().max() < 1e-11


def projected(network: ViT, file: dict[str, Tensor], images: Tensor) -> Tensor:
    """DINO's head over our class token."""
    w = {name: x.double() for name, x in file.items()}
    with torch.inference_mode():
        x = network(images)
    layers = sorted({int(name.split(".")[2]) for name in w if name.startswith("head.mlp.")})
    for layer in layers:
        x = x if layer == layers[0] else torch.nn.functional.gelu(x)
        x = x @ w[f"head.mlp.{layer}.weight"].T + w[f"head.mlp.{layer}.bias"]
    x = torch.nn.functional.normalize(x, dim=-1)
    v = w["head.last_layer.weight_v"]
    last = w["head.last_layer.weight_g"] * v / v.norm(dim=1, keepdim=True)
    return x @ last.T


def test_a_dinov2_with_registers_at_its_size_and_another(tmp_path: Path) -> None:
    config, values = recorded("dinov2_heads_28")
    network = there_and_back(tmp_path, of_names(values, "backbone:"), "timm", **told(config))
    assert network.spec.registers == 2 and network.spec.layer_scale is not None
    with torch.inference_mode():
        seen = network.features(values["x"].double())
        other = network.features(values["x_other"].double(), any_size=True)
    assert (seen.cls - values["cls64"]).abs().max() < 1e-11
    assert (seen.patches - values["patches64"]).abs().max() < 1e-11
    assert (seen.registers - values["registers64"]).abs().max() < 1e-11
    # its authors resize positions in float32, whatever the network is in
    assert (other.cls - values["other_cls64"]).abs().max() < 1e-6
    assert (other.patches - values["other_patches64"]).abs().max() < 1e-6
