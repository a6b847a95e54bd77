"""Metadata of an exported network: its preprocessing and classes, under names that others read."""

from __future__ import annotations

import json
from typing import Any

from vitral.weights.card import Card


def model_info(card: Card) -> dict[str, str]:
    """Describe a classifier under the keys of OpenVINO's ModelAPI, without their prefix.

    Labels are separated by spaces, and a space within one becomes an underscore; `classes`
    has the names as they are, in JSON, and `preprocessing` the whole ImageSpec.
    """
    images = card.images
    info = {
        "model_type": "Classification",
        "model_name": card.model.name,
        "labels": " ".join(name.replace(" ", "_") or "_" for name in card.classes),
        "mean_values": " ".join(f"{255 * value:.6g}" for value in images.mean),
        "scale_values": " ".join(f"{255 * value:.6g}" for value in images.std),
        "reverse_input_channels": "False",
        "resize_type": {"crop": "crop", "squash": "standard", "pad": "fit_to_window_letterbox"}[
            images.fit
        ],
        "output_raw_scores": "True",
        "multilabel": str(card.labels == "several"),
        "classes": json.dumps(list(card.classes)),
        "preprocessing": json.dumps(images.to_dict()),
    }
    if card.calibration is not None:
        info["confidence_threshold"] = f"{card.calibration.threshold:.6g}"
        info["temperature"] = f"{card.calibration.temperature:.6g}"
    return info


def transformers_config(card: Card) -> dict[str, Any]:
    """Return the config.json of an image classifier by which transformers.js opens it."""
    spec = card.model
    return {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "image_size": spec.size[0],
        "patch_size": spec.patch[0],
        "num_channels": spec.channels,
        "problem_type": (
            "multi_label_classification"
            if card.labels == "several"
            else "single_label_classification"
        ),
        "id2label": {str(i): name for i, name in enumerate(card.classes)},
        "label2id": {name: i for i, name in enumerate(card.classes)},
    }


def transformers_preprocessor(card: Card) -> dict[str, Any]:
    """Return the preprocessor_config.json of the same, as an image processor resizes and crops."""
    images = card.images
    height, width = images.size
    resampling = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
    settings: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": resampling[images.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
    }
    if images.fit == "crop" and height == width:
        # only this class reads a shortest edge, and crops
        settings |= {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": int(height / images.crop)},
            "do_center_crop": True,
            "crop_size": {"height": height, "width": width},
        }
    return settings
