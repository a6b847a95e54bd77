"""A file that is no network of ours is told by what it is."""

import json
from pathlib import Path

import pytest
import torch

from checkpoints import HELD, store, theirs
from vitral.errors import WeightsError
from vitral.weights.convert import convert
from vitral.weights.read import read_weights

NAMES = {
    "LoRA updates": "base_model.model.blocks.0.attn.qkv.lora_A.weight",
    "a diffusion model": "model.diffusion_model.input_blocks.0.0.weight",
    r"a detector \(YOLO\)": "model.22.cv2.0.0.conv.weight model.22.dfl.conv.weight",
    "Mask R-CNN": "backbone.body.conv1.weight rpn.head.conv.weight roi_heads.box_head.fc6.weight",
    r"a detector \(DETR\)": "bbox_embed.layers.0.weight class_embed.weight query_embed.weight",
    "SAM": "image_encoder.blocks.0.norm1.weight mask_decoder.iou_token.weight",
    "CLIP, a tower": "visual.transformer.resblocks.0.ln_1.weight logit_scale",
    "a Swin": "layers.0.blocks.0.attn.relative_position_bias_table layers.0.blocks.0.norm1.weight",
    "BEiT": "blocks.0.attn.relative_position_bias_table blocks.0.norm1.weight",
    "a ConvNeXt": "stages.0.blocks.0.conv_dw.weight stages.0.blocks.0.norm.weight",
    "an MLP-Mixer": "blocks.0.mlp_tokens.fc1.weight",
    "a language model": "model.embed_tokens.weight model.layers.0.self_attn.q_proj.weight",
    "a ResNet with batch norm": "conv1.weight bn1.running_mean layer1.0.conv1.weight",
    "a convolutional network": "features.0.0.weight features.0.1.running_mean",
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("prefix", ["", "model.net."])
def test_the_names_tell(tmp_path: Path, kind: str, prefix: str) -> None:
    values = {prefix + name: torch.ones(2) for name in NAMES[kind].split()}
    with pytest.raises(WeightsError, match=f"is no Vision Transformer.*It is .*{kind}") as no:
        read_weights(store(tmp_path / "w.safetensors", values))
    assert len(str(no.value)) < 500


def test_a_configuration_tells_where_names_do_not(tmp_path: Path) -> None:
    store(tmp_path / "model.safetensors", {"x.weight": torch.ones(2)})
    (tmp_path / "config.json").write_text('{"model_type": "pvt"}')
    with pytest.raises(WeightsError, match=r"config\.json says 'pvt'"):
        read_weights(tmp_path)


def folder(path: Path, **settings: object) -> Path:
    path.mkdir(exist_ok=True)
    store(path / "model.safetensors", theirs("transformers", HELD["transformers"]["token"]))
    config = {"model_type": "vit", "hidden_size": 32, "num_attention_heads": 4, "image_size": 32,
              "patch_size": 8, "num_hidden_layers": 2}  # fmt: skip
    (path / "config.json").write_text(json.dumps({**config, **settings}))
    return path


def test_several_labels_go_both_ways(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", problem_type="multi_label_classification")
    assert read_weights(source).card.labels == "several"
    convert(source, tmp_path / "b")
    convert(tmp_path / "b", tmp_path / "c", to="transformers")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    for kind in (None, "single_label_classification"):
        assert read_weights(folder(tmp_path / "a", problem_type=kind)).card.labels == "one"
    told = ["weights.labels=several"]
    assert read_weights(folder(tmp_path / "a"), changes=told).card.labels == "several"


@pytest.mark.parametrize("kind", ["regression", "nonsense", 3])
def test_outputs_that_are_no_classes(tmp_path: Path, kind: object) -> None:
    source = folder(tmp_path / "a", problem_type=kind)
    with pytest.raises(WeightsError, match=r"problem_type.*--set model\.classes=0"):
        convert(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert read_weights(source, changes=["model.classes=0"]).card.model.classes == 0
    assert read_weights(source, unusable_head="drop").card.model.classes == 0


def test_the_preprocessing_of_a_folder_is_told_or_assumed(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    (note,) = (note for note in read_weights(source).notes if "preprocessor_config.json" in note)
    assert "the defaults of ViTImageProcessor are assumed" in note
    assert "mean 0.5, 0.5, 0.5" in note and "--set images.mean=[0.5,0.5,0.5]" in note
    changed = read_weights(source, changes=["images.mean=[0.25,0.5,0.5]"])
    assert "mean 0.25, 0.5, 0.5" in " ".join(changed.notes)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (source / "preprocessor_config.json").write_text(json.dumps(processor))
    for path in (source, source / "model.safetensors"):
        assert "assumed" not in " ".join(read_weights(path).notes)
