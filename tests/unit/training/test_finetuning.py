"""What learns under each way of tuning, and that low-rank updates merge into the plain network."""

import copy
import re

import pytest
import torch
from networks import pictures, randomised, tiny, tiny_bit

from vitral.errors import SpecError
from vitral.model import ViT, build
from vitral.specs import counts
from vitral.training.ema import EMA
from vitral.training.finetuning import plain, prepare, trainable
from vitral.training.recipe import Tune

SPECS = {
    "cls": tiny(),
    "map": tiny(pool="map", class_token=False),
    "mean without biases": tiny(pool="mean", biases="none", class_token=False),
    "distilled": tiny(distillation_token=True),
    "relative": tiny(positions="relative", qk_norm=True),
    "pre-logits": tiny(representation=24),
}
ALL = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def learning(model: ViT) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def moved(model: ViT, seed: int = 3) -> ViT:
    """`model` with every value that learns elsewhere, as training would leave it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@ALL
def test_full_leaves_the_network_alone(spec) -> None:
    model = build(spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare(model, Tune.parse("full"))
    assert learning(model) == set(dict(model.named_parameters()))
    assert trainable(model) == counts.parameters(spec)
    found = plain(model)
    assert list(found) == list(before)
    assert all(torch.equal(found[name], before[name]) for name in before)


@ALL
def test_a_probe_is_the_heads(spec) -> None:
    model = build(spec)
    prepare(model, Tune.parse("probe"))
    expected = {name for name in dict(model.named_parameters()) if "head." in name}
    assert learning(model) == expected
    heads = 1 + spec.distillation_token
    assert trainable(model) == heads * spec.classes * ((spec.representation or spec.width) + 1)


@ALL
def test_the_last_blocks_take_everything_above_with_them(spec) -> None:
    for count in (1, 2):
        model = build(spec)
        prepare(model, Tune.parse(f"last:{count}"))
        below = r"(stem|patches|cls|distillation|registers|positions)\b.*"
        frozen = below if count == 2 else rf"{below}|blocks\.0\..*"
        names = set(dict(model.named_parameters()))
        assert learning(model) == {name for name in names if not re.fullmatch(frozen, name)}
        assert {"norm.weight", "blocks.1.mlp.fc1.weight", "head.weight"} <= learning(model)


def test_the_tenth_block_is_not_the_first() -> None:
    model = build(tiny(depth=12))
    prepare(model, Tune.parse("last:2"))
    blocks = {name.split(".")[1] for name in learning(model) if name.startswith("blocks.")}
    assert blocks == {"10", "11"}


@ALL
def test_the_first_outputs_with_low_ranks_are_bit_equal(spec) -> None:
    model, images = randomised(spec).float(), pictures(spec).float()
    prepare(
        model, Tune.parse("probe")
    )  # torch's kernels may round differently where weights are frozen
    with torch.no_grad():
        before = model(images)
        prepare(model, Tune.parse("lora"))
        assert torch.equal(model(images), before)
    grown = {n for n in learning(model) if n.rpartition(".")[2] in ("up", "down")}
    assert grown == {
        f"blocks.{i}.attention.{layer}.{part}"
        for i in range(spec.depth)
        for layer in ("qkv", "out")
        for part in ("up", "down")
    }
    assert {name for name in learning(model) - grown if "head." not in name} == set()


def test_the_rank_decides_how_much_learns() -> None:
    width, heads = 32, 5 * 33  # of qkv rank x (32 + 96), of out rank x (32 + 32), in two blocks
    for tune, rank in (("lora", 8), ("lora:1", 1), ("lora:32", 32)):
        model = build(tiny())
        prepare(model, Tune.parse(tune))
        assert trainable(model) == heads + 2 * rank * (4 * width + 2 * width)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_tuned_merges_into_the_plain_network(spec, dtype) -> None:
    model = randomised(spec).to(dtype)
    prepare(model, Tune.parse("lora:3"))
    moved(model)
    untouched = build(spec).to(dtype).eval()
    found, expected = plain(model), untouched.state_dict()
    assert [(n, x.shape, x.dtype) for n, x in found.items()] == [
        (n, x.shape, x.dtype) for n, x in expected.items()
    ]
    untouched.load_state_dict(found)
    images = pictures(spec).to(dtype)
    with torch.no_grad():
        tuned, other = model(images), untouched(images)
        bare = build(spec).to(dtype).eval()
        bare.load_state_dict({n: x for n, x in model.state_dict().items() if n in expected})
        assert (bare(images) - tuned).abs().max() > 1e-2  # the updates do something
    tolerance = 4e-6 if dtype == torch.float32 else 1e-12  # the rounding of two orders of sums
    assert (tuned - other).abs().max() <= tolerance * tuned.abs().max().clamp(min=1)


def test_an_update_is_the_papers() -> None:
    """W + (alpha / r) B A of section 4.1, with alpha / r = 2."""
    model = randomised(tiny())
    kernel = model.blocks[1].attention.out.weight.detach().numpy().copy()
    prepare(model, Tune.parse("lora:2"))
    moved(model)
    layer = model.blocks[1].attention.out
    expected = kernel + 2 * layer.up.detach().numpy() @ layer.down.detach().numpy()
    found = plain(model)["blocks.1.attention.out.weight"].numpy()
    assert abs(found - expected).max() < 1e-14
    assert (layer.weight.detach().numpy() == kernel).all()


def test_training_moves_only_what_learns_and_copies_are_their_own() -> None:
    model, images = build(tiny()).train(), pictures(tiny()).float()
    prepare(model, Tune.parse("lora:2"))
    twin = copy.deepcopy(model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    parts = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parts, lr=0.1)
    for _ in range(3):  # the head is zero at first, then `up`: `down` moves with the third step
        model(images).square().sum().add(model(images)[:, 0].sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    assert changed == learning(model)
    assert all(torch.equal(value, before[name]) for name, value in twin.named_parameters())


def test_under_autocast_and_with_recomputed_blocks() -> None:
    spec = tiny()
    images = pictures(spec).float()
    model = randomised(spec, checkpointing=True).float().train()
    prepare(model, Tune.parse("lora:2"))
    moved(model)
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        loose = model(images)
    assert loose.dtype == torch.bfloat16
    assert (loose.float() - exact).abs().max() < 0.1 * exact.abs().max()
    loose.float().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_an_average_of_what_learns_merges_too() -> None:
    model = build(tiny())
    prepare(model, Tune.parse("lora:2"))
    average = EMA(model, 0.9)
    assert set(average.tensors) == learning(model)
    first = plain(copy.deepcopy(model))
    moved(model)
    with average.swapped_in(model):
        assert all(torch.equal(x, first[name]) for name, x in plain(model).items())
    assert not torch.equal(
        plain(model)["blocks.0.attention.qkv.weight"], first["blocks.0.attention.qkv.weight"]
    )


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("last:3", r"'last:1' to 'last:2' for tiny, not 'last:3'"),
        ("lora:33", r"'lora:1' to 'lora:32' for tiny"),
        ("last:0", "last:N"),
        ("half", "last:N"),
    ],
)
def test_what_this_network_cannot_do(tune: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        prepare(build(tiny()), Tune.parse(tune))


@pytest.mark.parametrize("tune", ["last:1", "lora", "lora:4"])
def test_a_resnet_has_no_blocks_to_choose(tune: str) -> None:
    with pytest.raises(SpecError, match="'full' or 'probe' for tiny, a ResNet without blocks"):
        prepare(build(tiny_bit()), Tune.parse(tune))


def test_a_resnet_can_be_probed() -> None:
    model = build(tiny_bit())
    prepare(model, Tune.parse("probe"))
    assert learning(model) == {"head.weight", "head.bias"}
