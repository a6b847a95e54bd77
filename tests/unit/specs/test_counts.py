"""Arithmetic against the published numbers, the network itself, and torch's FLOPs."""

import pytest
import torch
from networks import STEM, tiny
from torch.utils.flop_counter import FlopCounterMode

from vitral.catalog import model
from vitral.model import ViT
from vitral.specs import Dropouts, ModelSpec, counts

PATCHES = (32, 16, 14, 8)
TABLE = """
mu       145736     76712      72872      77096
Ti       6131560    5717416    5694376    5719720
S        22878952   22050664   22004584   22055272
M        39942120   38837736   38776296   38843880
B        88224232   86567656   86475496   86576872
L        306535400  304326632  304203752  304338920
So400m   416220760  413735896  413597656  413749720
H        634960360  632199400  632045800  632214760
g        1015817448 1012780392 1012611432 1012797288
g-opt    1139599336 1136286184 1136101864 1136304616
G        1848229608 1844640360 1844440680 1844660328
G-opt    1668339688 1665026536 1664842216 1665044968
e        3811294696 3807429352 3807214312 3807450856
"""
PUBLISHED = {
    f"{row.split()[0]}/{patch}": int(count)
    for row in TABLE.strip().splitlines()
    for patch, count in zip(PATCHES, row.split()[1:], strict=True)
} | {
    "R+Ti/16": 6_337_704,
    "R26+S/32": 36_431_912,
    "R26+B/32": 101_383_976,
    "R50+B/16": 98_659_112,
    "R50+L/32": 328_994_856,
    "R50+B/32": 110_945_832,
    "R50+L/16": 316_483_624,
    "ResNet-R50x1": 25_557_032,  # torchvision's resnet50 has as many
    "BiT-R50x1": 25_549_352,
    "BiT-R50x2": 97_988_712,
    "BiT-R50x3": 217_319_080,
    "BiT-R101x1": 44_541_480,
    "BiT-R101x3": 387_934_888,
    "BiT-R152x1": 60_185_128,
    "BiT-R152x2": 236_335_208,
    "BiT-R152x4": 936_533_224,
    "BiT-R200x3": 568_633_000,
}
CHANGED = [  # paper.md 1.2, and the four gap-pooled variants that the authors assert
    ("B/16", {"pool": "mean"}, 86_566_120),
    ("B/32", {"pool": "mean"}, 88_222_696),
    ("S/16", {"pool": "mean"}, 22_049_896),
    ("S/32", {"pool": "mean"}, 22_878_184),
    ("g/14", {"pool": "mean", "classes": 0}, 1_011_199_616),
    ("G/14", {"pool": "mean", "classes": 0}, 1_842_772_352),
    ("B/16", {"size": 384}, 86_859_496),
    ("L/16", {"size": 384}, 304_715_752),
    ("H/14", {"size": 518}, 633_470_440),
    ("B/16", {"representation": 768}, 87_158_248),
    ("B/16", {"representation": 768, "classes": 21_843}, 103_186_515),
    ("B/16", {"prefix_positions": False}, 86_566_888),
    ("B/16", {"pool": "map"}, 93_653_224),
    ("S/16", {"pool": "mean", "positions": "sincos2d", "representation": 384}, 22_122_472),
    ("S/16", {"pool": "mean", "positions": "sincos2d"}, 21_974_632),
]
SPREAD = [
    tiny(),
    tiny(patch=(16, 8), channels=5, head_width=12, biases="none"),
    tiny(positions="learned2d", distillation_token=True, registers=2),
    tiny(positions="learned2d", positions_at="every", prefix_positions=False),
    tiny(positions="learned", positions_at="every", layer_scale=0.1),
    tiny(positions="relative", registers=2, qk_norm=True, biases="no_qkv"),
    tiny(positions="rope2d", pool="mean", class_token=False, representation=11),
    tiny(pool="cls_mean", pool_blocks=2),
    tiny(pool="cls_mean", representation=7, registers=1),
    tiny(pool="mean_all", pool_norm="after"),
    tiny(pool_blocks=2),
    tiny(patch_norms=True, biases="no_attention", patch=(8, 16)),
    tiny(heads=1, out_projection=False, resnet=STEM, patch=1, patch_norms=True),
    tiny(pool="map", class_token=False, qk_norm=True, head_width=20, biases="no_qkv"),
    tiny(registers=3, register_positions=True),
    tiny(positions="learned2d", distillation_token=True, registers=2, register_positions=True),
    tiny(positions="relative", registers=2, register_positions=True),
    tiny(
        class_token=False, pool="mean", registers=4, register_positions=True, positions_at="every"
    ),
    tiny(resnet=STEM, patch=(1, 2), classes=0),
    model("R50+B/16"),
    model("R+Ti/16", size=(64, 96)),
    model("BiT-R50x1", size=(70, 54)),
    model("ResNet-R26x1", size=(70, 54)),
    model("S/16", size=384),
    model("So400m/14", pool="map"),
    model("deit_base_distilled_patch16_384"),
]


def on_meta(spec: ModelSpec) -> ViT:
    with torch.device("meta"):
        return ViT(spec, Dropouts()).eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    assert counts.parameters(model(name)) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "changes", "count"), CHANGED)
def test_published_counts_of_variants(name, changes, count):
    assert counts.parameters(model(name, **changes)) == count


@pytest.mark.parametrize("spec", SPREAD, ids=lambda spec: f"{spec.name}-{spec.positions}")
def test_parameters_and_flops_are_what_torch_counts(spec):
    network = on_meta(spec)
    assert counts.parameters(spec) == sum(p.numel() for p in network.parameters())
    height, width = spec.size
    sizes = [spec.size] if spec.positions == "relative" else [spec.size, (2 * height, width)]
    for size in sizes:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, spec.channels, *size, device="meta"), any_size=True)
        assert counts.flops(spec, size) == counter.get_total_flops()


def test_flops_scale_with_the_size_given():
    assert counts.flops(model("B/16")) == counts.flops(model("B/16"), 224) == 35_127_656_448
    assert counts.flops(model("B/16"), 384) == counts.flops(model("B/16", size=384))
