"""The other networks that people keep in such files, told by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable

# what it is, and expressions that each find one of its names
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "a network with low-rank updates beside its weights (where it was made, "
        "model.merge_and_unload() in peft merges them)",
        (r"lora_A\b", r"\.base_layer\.weight"),
    ),
    (
        "LoRA updates alone, without the network that they change (with adapter_config.json in "
        "one folder: vitral convert FOLDER OUT --base WEIGHTS)",
        (r"lora_(A|B|up|down)\b",),
    ),
    ("a diffusion model", (r"(^|\.)diffusion_model\.|first_stage_model\.|adaLN_modulation",)),
    ("a diffusion model", (r"(^|\.)down_blocks\.\d", r"(^|\.)up_blocks\.\d")),
    ("a detector (YOLO)", (r"(^|\.)model\.\d+\.(cv\d|dfl|m\.\d)",)),
    ("a detector (Faster or Mask R-CNN)", (r"(^|\.)(rpn|roi_heads?)\.",)),
    ("a detector (DETR)", (r"(bbox_embed|bbox_predictor)\.", r"class_|query_")),
    ("a detector", (r"(^|\.)(bbox_head|yolo_head|det_head|ssd_head|anchors?)\b",)),
    ("a segmentation network (SAM)", (r"(^|\.)(mask_decoder|prompt_encoder)\.",)),
    ("a segmentation network", (r"(^|\.)(decode_head|seg_head|segmentation_head|aspp)\.",)),
    ("a network for depth", (r"(^|\.)(depth_head|neck\.fusion_stage)\.",)),
    ("CLIP, a tower for images beside one for words", (r"(^|\.)(logit_scale|text_projection)\b",)),
    ("CLIP's tower for images", (r"visual\.(transformer|conv1)|vision_model\.pre_la?yernorm",)),
    ("SigLIP as transformers names it", (r"(^|\.)vision_model\.encoder\.layers\.0\.",)),
    ("MaxViT", (r"attn_(block|grid)\.",)),
    ("a Swin Transformer", (r"relative_position_bias_table", r"(layers|features|stages)\.\d+\.",)),
    ("BEiT", (r"relative_position_bias_table",)),
    ("a Pyramid Vision Transformer or SegFormer", (r"mlp\.dwconv\.|\.sr\.weight",)),
    ("a ConvNeXt", (r"(dwconv|conv_dw|depthwise_conv)\.", r"(stages|stage)\.\d+\.",)),
    ("a ConvNeXt", (r"features\.\d+\.\d+\.block\.0\.", r"layer_scale")),
    ("an MLP-Mixer", (r"mlp_tokens\.|token_mix",)),
    ("CaiT, whose heads talk to each other", (r"attn\.proj_l\.weight",)),
    ("XCiT", (r"cls_attn_blocks\.", r"local_mp\.")),
    ("a ViT with relative positions in each block, as SAM's", (r"attn\.rel_pos_[hw]$",)),
    ("EVA-02", (r"mlp\.fc1_g\.|mlp\.w1\.|attn\.q_bias$",)),
    ("a ViT with a norm before its blocks, as CLIP's tower for images", (r"(^|\.)norm_pre\.",)),
    ("a ViT under mmpretrain's names", (r"(^|\.)layers\.\d+\.ln1\.",)),
    ("a language model", (r"(embed_tokens|wte|word_embeddings|tok_embeddings)\.weight",)),
    ("a network for sound (wav2vec)", (r"(^|\.)(feature_extractor\.conv_layers|mel_)",)),
    ("a ResNet with batch norm", (r"(^|\.)layer[1-4]\.\d+\.(conv1|bn1)\.",)),
    ("a convolutional network with batch norm", (r"\.running_mean$", r"conv|features\.\d")),
)  # fmt: skip


def named(names: Iterable[str]) -> str:
    """Name the kind of network that has such names, "" where nothing tells."""
    text = "\n".join(names)
    for kind, expressions in KINDS:
        if all(re.search(each, text, re.MULTILINE) for each in expressions):
            return kind
    return ""
