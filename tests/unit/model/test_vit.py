import itertools
from dataclasses import replace

import pytest
import torch
from networks import STEM, pictures, randomised, tiny, tiny_bit, tiny_resnet
from torch.nn import functional as F

from vitral.catalog import model
from vitral.errors import ModelError, SpecError
from vitral.model import StepSamples, ViT, build
from vitral.specs import Dropouts, ModelSpec, counts

POSITIONS = ("none", "learned", "learned2d", "sincos2d", "sincos2d_mae", "relative", "rope2d")
PLACES = ("stem", "every", "shared")
ENDS = {
    "cls": {},
    "cls after, hidden layer": {"pool_norm": "after", "representation": 6},
    "distilled": {"distillation_token": True},
    "mean": {"pool": "mean", "class_token": False},
    "mean after, class token": {"pool": "mean", "pool_norm": "after"},
    "mean of all": {"pool": "mean_all"},
    "class token and mean": {"pool": "cls_mean"},
    "class tokens of two blocks, mean, hidden layer": {
        "pool": "cls_mean",
        "pool_blocks": 2,
        "representation": 6,
    },
    "map": {"pool": "map", "class_token": False},
    "map after, hidden layer": {"pool": "map", "pool_norm": "after", "representation": 6},
}
OTHERS = [  # taken in turn, so that each meets every position and every end
    {},
    {"registers": 2, "prefix_positions": False},
    {"gelu": "erf", "layer_scale": 0.1},
    {"qk_norm": True, "biases": "none", "head_width": 12},
    {"resnet": STEM, "patch": (1, 2), "biases": "no_qkv"},
    {"patch_norms": True, "biases": "no_attention", "heads": 1, "out_projection": False},
]
NOISES = [
    {},
    {"drop_path": 0.2, "dropout": 0.1},
    {"patch_dropout": 0.5, "attention_dropout": 0.1},
]


def combinations(positions, *, all_of_them):
    """Each place and end with one of the others in turn, or with all of them."""
    turns = itertools.count(POSITIONS.index(positions))
    for turn, (at, end) in zip(turns, itertools.product(PLACES, ENDS), strict=False):
        for changes in OTHERS if all_of_them else [OTHERS[turn % len(OTHERS)]]:
            yield at, end, changes, NOISES[turn % len(NOISES)]


def refused(positions: str, at: str) -> bool:
    inside = positions in ("none", "relative", "rope2d")
    return (inside and at != "stem") or (positions.startswith("sincos") and at == "every")


def train_two_steps(model: ViT, images: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    labels = torch.tensor([0, 4])
    for _ in range(2):
        loss = F.cross_entropy(model.train()(images), labels)
        loss.backward()
        assert loss.isfinite()
        optimizer.step()
    for name, value in model.named_parameters():
        assert value.grad is not None and value.isfinite().all(), name


def check_combinations(positions: str, *, all_of_them: bool) -> None:
    torch.manual_seed(0)
    for at, end, changes, noise in combinations(positions, all_of_them=all_of_them):
        if refused(positions, at):
            with pytest.raises(SpecError, match="positions_at"):
                tiny(positions=positions, positions_at=at)
            continue
        spec = tiny(positions=positions, positions_at=at, **ENDS[end], **changes)
        model = build(spec, Dropouts(**noise), checkpointing="dropout" in noise)
        images = pictures(spec).float()
        before = model.head.weight.clone()
        train_two_steps(model, images)
        assert not torch.equal(before, model.head.weight)
        again = build(spec)
        again.load_state_dict(model.state_dict(), strict=True)
        with torch.no_grad():
            assert torch.equal(again.eval()(images), model.eval()(images)), (spec, noise)


@pytest.mark.parametrize("positions", POSITIONS)
def test_combinations_that_make_sense_train_save_and_reload(positions):
    check_combinations(positions, all_of_them=False)


@pytest.mark.proof
@pytest.mark.parametrize("positions", POSITIONS)
def test_all_combinations_that_make_sense_train_save_and_reload(positions):
    check_combinations(positions, all_of_them=True)


def test_every_parameter_learns():
    """The head is zero at first, so the rest learns from the second step on."""
    for changes in ({}, {"layer_scale": 1.0, "registers": 1, "representation": 8, "qk_norm": True}):
        spec = tiny(**changes)
        model = build(spec)
        before = {name: value.clone() for name, value in model.named_parameters()}
        train_two_steps(model, pictures(spec).float())
        for name, value in model.named_parameters():
            assert not torch.equal(value, before[name]), name


def test_names_of_the_state_dict_are_a_contract():
    spec = tiny(
        depth=1,
        distillation_token=True,
        registers=1,
        layer_scale=0.1,
        qk_norm=True,
    )
    block = [f"attention.{part}" for part in ("qkv", "out", "q_norm", "k_norm")]
    block += ["norm1", "norm2", "mlp.fc1", "mlp.fc2"]
    layers = [f"blocks.0.{part}" for part in block]
    layers += ["patches", "norm", "head", "distillation_head"]
    expected = {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    expected |= {"cls", "distillation", "registers", "positions.table"}
    expected |= {"blocks.0.scale1", "blocks.0.scale2"}
    assert set(build(spec).state_dict()) == expected
    assert set(build(tiny(pool="map", class_token=False, depth=1)).state_dict()) > {"pool.probe"}
    kernels = {n for n, v in build(spec).named_parameters() if n.endswith("weight") and v.ndim > 1}
    assert kernels == {f"{part}.weight" for part in layers if "norm" not in part}


def test_the_mean_pools_normed_patches_alone():
    spec = tiny(pool="mean", registers=2)
    network, images = randomised(spec), pictures(spec)
    tokens = network.features(images, [spec.depth]).per_block[spec.depth]
    expected = network.norm(tokens)[:, 3:].mean(1)
    assert (network.representation(images) - expected).abs().max() < 1e-12
    after = replace(spec, pool_norm="after")
    other = randomised(after)
    expected = other.norm(tokens[:, 3:].mean(1))
    assert (other.representation(images) - expected).abs().max() < 1e-12


def test_the_mean_of_all_has_the_class_token_in_it():
    spec = tiny(pool="mean_all", registers=2)
    network, images = randomised(spec), pictures(spec)
    tokens = network.features(images, [spec.depth]).per_block[spec.depth]
    expected = network.norm(tokens).mean(1)
    assert (network.representation(images) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("registers", [0, 2])
def test_dinov2s_heads_read_class_tokens_beside_the_mean_of_the_patches(blocks, registers):
    """Their `create_linear_input`: normed class tokens of the last blocks, then the mean."""
    spec = tiny(depth=5, pool="cls_mean", pool_blocks=blocks, registers=registers)
    network, images = randomised(spec), pictures(spec)
    tokens = network.features(images, range(6)).per_block
    normed = [network.norm(tokens[depth]) for depth in range(5 - blocks + 1, 6)]
    patches = normed[-1][:, 1 + registers :]
    vector = torch.cat([*(each[:, 0] for each in normed), patches.mean(1)], dim=1)
    assert vector.shape[1] == spec.pooled_width == (blocks + 1) * 32
    assert (network.representation(images) - vector).abs().max() < 1e-12
    assert (network(images) - network.head(vector)).abs().max() < 1e-12


def test_the_hidden_layer_ends_in_tanh():
    spec = tiny(representation=6)
    network, images = randomised(spec), pictures(spec)
    hidden = network.representation(images)
    assert hidden.shape == (2, 6) and hidden.abs().max() < 1
    cls = network.features(images).cls
    assert torch.allclose(hidden, torch.tanh(network.pre_logits(cls)), atol=1e-12)
    assert torch.allclose(network(images), network.head(hidden), atol=1e-12)


def test_without_classes_the_representation_is_the_answer():
    spec = tiny(classes=0)
    network, images = randomised(spec), pictures(spec)
    assert torch.equal(network(images), network.representation(images))
    assert not [name for name in network.state_dict() if name.startswith("head")]


def test_a_distilled_model_answers_with_the_mean_of_its_heads():
    spec = tiny(distillation_token=True)
    network, images = randomised(spec), pictures(spec)
    first, second = network.logits_per_head(images)
    features = network.features(images)
    assert torch.allclose(first, network.head(features.cls), atol=1e-12)
    assert torch.allclose(second, network.distillation_head(features.distillation), atol=1e-12)
    assert torch.allclose(network(images), (first + second) / 2, atol=1e-12)
    assert torch.equal(network.train()(images), network.eval()(images))  # one answer, always
    assert len(randomised(tiny()).logits_per_head(images)) == 1


@pytest.mark.parametrize("at", ["stem", "every", "shared"])
def test_positions_are_added_where_the_spec_says(at):
    spec = tiny(positions_at=at)
    network, images = randomised(spec), pictures(spec)
    tokens = network.patches(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([network.cls.expand(2, -1, -1), tokens], dim=1)
    table = network.positions.table
    assert table.shape == (2 if at == "every" else 1, 7, 32)
    added = {
        "stem": [table[0], torch.zeros_like(table[0])],
        "every": [table[0], table[-1]],
        "shared": [table[0], table[0]],
    }
    for index, block in enumerate(network.blocks):
        tokens = tokens + added[at][index]
        entering = network.features(images, [index]).per_block[index]
        assert (entering - tokens).abs().max() < 1e-12
        tokens = block(tokens)
    assert (network.head(network.norm(tokens[:, 0])) - network(images)).abs().max() < 1e-12


@pytest.mark.parametrize("positions", ["none", "sincos2d"])
def test_without_learned_positions_only_the_fixed_ones_break_the_order_of_patches(positions):
    spec = tiny(positions=positions, size=(32, 32))
    network, images = randomised(spec), pictures(spec)
    swapped = torch.cat([images[:, :, 16:], images[:, :, :16]], dim=2)
    difference = (network(images) - network(swapped)).abs().max()
    assert difference < 1e-12 if positions == "none" else difference > 1e-3


@pytest.mark.parametrize("positions", [p for p in POSITIONS if p != "relative"])
@pytest.mark.parametrize("at", ["stem", "every", "shared"])
def test_another_size_works_when_asked_and_is_what_resized_gives(positions, at):
    if refused(positions, at):
        pytest.skip("no such model")
    spec = tiny(positions=positions, positions_at=at, registers=1)
    network, images = randomised(spec), pictures(tiny(size=(48, 80)))
    with pytest.raises(ModelError, match="takes 32x48 pixels, not 48x80"):
        network(images)
    on_the_way = network(images, any_size=True)
    resized = network.resized((48, 80))
    assert resized.spec.size == (48, 80) and not resized.training
    assert (resized(images) - on_the_way).abs().max() < 1e-12
    assert counts.parameters(resized.spec) == sum(p.numel() for p in resized.parameters())
    before = network(pictures(spec))
    with torch.no_grad():
        resized.patches.weight.zero_()
    assert torch.equal(network(pictures(spec)), before)  # a copy, not a view
    assert all(value.requires_grad for value in resized.parameters())


def test_features_carry_the_grid_and_what_enters_each_block():
    spec = tiny(registers=2, distillation_token=True)
    network, images = randomised(spec), pictures(spec)
    features = network.features(images, range(spec.depth + 1))
    assert features.grid == (2, 3) and features.patches.shape == (2, 6, 32)
    assert features.registers.shape == (2, 2, 32) and features.cls.shape == (2, 32)
    assert features.distillation.shape == (2, 32)
    assert network.spec.prefix == 4
    assert list(features.per_block) == [0, 1, 2]
    through = network.blocks[0](features.per_block[0])
    assert torch.allclose(through, features.per_block[1], atol=1e-12)
    last = network.norm(network.blocks[1](features.per_block[1]))
    together = [features.cls[:, None], features.distillation[:, None]]
    together = torch.cat([*together, features.registers, features.patches], dim=1)
    assert torch.allclose(last, together, atol=1e-12)
    with pytest.raises(ModelError, match="Blocks are 0 to 2; there is no 3"):
        network.features(images, [3])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positions": "rope2d", "registers": 2},
        {"positions": "relative"},
        {"positions_at": "every", "qk_norm": True},
        {"positions_at": "shared", "pool": "mean"},
    ],
    ids=str,
)
def test_attention_weights_rebuild_the_forward_pass(changes):
    spec = tiny(**changes)
    network, images = randomised(spec), pictures(spec)
    weights = network.attention_weights(images)
    assert [w.shape for w in weights] == [(2, 4, spec.tokens, spec.tokens)] * 2
    features = network.features(images, [0, 1, 2])
    block, x = network.blocks[1], features.per_block[1]
    assert (weights[1].sum(-1) - 1).abs().max() < 1e-12
    v = network.queries_keys_values(images, 1)[2]
    x = x + block.attention.out((weights[1] @ v).transpose(1, 2).flatten(2))
    x = x + block.mlp(block.norm2(x))
    assert (x - features.per_block[2]).abs().max() < 1e-12
    only = network.attention_weights(images, [1])
    assert len(only) == 1 and torch.equal(only[0], weights[1])
    with pytest.raises(ModelError, match="tiny has no 2"):
        network.attention_weights(images, [2])


def test_attention_weights_carry_gradients_for_explanations():
    spec = tiny()
    network, images = randomised(spec), pictures(spec).requires_grad_()
    network.attention_weights(images)[1][:, :, 0].square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_patch_dropout_keeps_the_prefix_and_half_of_the_patches(monkeypatch):
    torch.manual_seed(0)
    spec = tiny(size=(64, 64), registers=1)
    network = randomised(spec, patch_dropout=0.5)
    lengths = []
    network.blocks[0].register_forward_pre_hook(
        lambda _, inputs: lengths.append(inputs[0].shape[1])
    )
    network(pictures(spec))
    network.train()(pictures(spec))
    assert lengths == [18, 10]
    kept = network._kept_patches(torch.zeros(50, 18, 32), (4, 4), None)
    assert (kept[:, :2] == torch.tensor([0, 1])).all() and kept.shape == (50, 10)
    assert all(len(set(row.tolist())) == 10 and row.max() < 18 for row in kept)
    assert len({tuple(row.tolist()) for row in kept}) > 40  # each image its own


@pytest.mark.parametrize(
    "changes", [{"positions": "rope2d"}, {"positions": "relative"}, {}], ids=str
)
@pytest.mark.parametrize("at", ["stem", "every"])
def test_patch_dropout_takes_the_positions_along(changes, at, monkeypatch):
    """Keeping every patch, in the order drawn, must change nothing."""
    if changes and at != "stem":
        pytest.skip("positions inside attention are added nowhere")
    spec = tiny(**changes, positions_at=at, registers=1)
    network, images = randomised(spec, patch_dropout=0.5), pictures(spec)
    expected = network(images)
    order = torch.tensor([[0, 1, 7, 3, 5, 2, 4, 6], [0, 1, 2, 3, 4, 5, 6, 7]])
    monkeypatch.setattr(network, "_kept_patches", lambda tokens, grid, samples: order)
    assert (network.train()(images) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("checkpointing", [False, True])
def test_parts_of_a_step_drop_what_the_whole_step_drops(checkpointing):
    """The random numbers of a step are its samples', however the step is cut."""
    spec = tiny(size=(64, 64))
    noise = {"drop_path": 0.5, "drop_path_rule": "constant", "patch_dropout": 0.5}
    network = randomised(spec, **noise, checkpointing=checkpointing).train()
    images, own = pictures(spec, 6), torch.arange(6)
    torch.manual_seed(3)
    whole = network(images)
    for part in own.split([1, 3, 2]):
        torch.manual_seed(3)
        (logits,) = network.logits_per_head(images[part], samples=StepSamples(part, 6))
        assert (logits - whole[part]).abs().max() < 1e-12


def test_checkpointing_changes_memory_and_nothing_else():
    spec = tiny()
    plain, saving = randomised(spec), randomised(spec, checkpointing=True)
    for network in (plain, saving):
        network.train()(pictures(spec)).square().sum().backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-12)


def test_training_noise_is_silent_in_evaluation():
    spec = tiny()
    noise = {"drop_path": 0.5, "dropout": 0.5, "attention_dropout": 0.5, "patch_dropout": 0.5}
    network, quiet = randomised(spec, **noise), randomised(spec)
    images = pictures(spec)
    assert torch.equal(network(images), quiet(images))
    assert not torch.equal(network.train()(images), network(images))


@pytest.mark.parametrize("spec", [tiny_bit(), tiny_resnet()], ids=["v2", "v1"])
def test_a_resnet_alone_is_a_stem_and_a_head(spec):
    network, images = randomised(spec), pictures(spec)
    features = network.features(images)
    assert features.grid == spec.grid == (4, 6) and features.patches.shape == (2, 24, 256)
    assert features.cls is None and network.spec.prefix == 0
    assert torch.allclose(network(images), network.head(features.patches.mean(1)), atol=1e-12)
    assert network.attention_weights(images) == []
    other = pictures(tiny(size=(40, 33), patch=1))
    assert (network.resized((40, 33))(other) - network(other, any_size=True)).abs().max() < 1e-12


def test_a_mistaken_tensor_is_refused_in_a_sentence():
    network = randomised(tiny())
    with pytest.raises(ModelError, match=r"tiny takes images \(B, 3, height, width\)"):
        network(torch.zeros(2, 4, 32, 48, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "spec",
    [
        tiny(),
        tiny(positions="rope2d", pool="map", class_token=False),
        tiny(positions="relative", qk_norm=True),
        tiny(positions="sincos2d", resnet=STEM, patch=1),
        tiny_bit(),
        tiny_resnet(),
    ],
    ids=range(6),
)
def test_half_precision_runs_and_stays_close(spec, dtype):
    network, images = randomised(spec), pictures(spec)
    with torch.no_grad():
        expected = network(images)
        half = network.to(dtype)(images.to(dtype))
    assert half.dtype == dtype
    assert (half - expected).abs().max() < 0.2 * expected.abs().max() + 0.2


@pytest.mark.parametrize("positions", ["learned", "relative", "rope2d"])
def test_queries_keys_and_values_of_any_block(positions):
    spec = ModelSpec(
        name="x",
        size=(16, 24),
        patch=8,
        width=32,
        depth=3,
        heads=2,
        mlp_width=8,
        classes=3,
        positions=positions,
    )
    network = randomised(spec).eval()
    with torch.no_grad():
        q, k, v = network.queries_keys_values(pictures(spec), 1)
        weights = network.attention_weights(pictures(spec), [1])[0]
    assert q.shape == k.shape == v.shape == (len(pictures(spec)), 2, spec.tokens, 16)
    if positions != "relative":
        assert torch.allclose((q @ k.mT / 4).softmax(-1), weights, atol=1e-6)
    with pytest.raises(ModelError, match="Blocks are 0 to 2; there is no 3"):
        network.queries_keys_values(pictures(spec), 3)


def test_attention_comes_in_the_order_asked_for():
    spec = ModelSpec(name="x", size=16, patch=8, width=32, depth=3, heads=2, mlp_width=8, classes=3)
    network = randomised(spec).eval()
    with torch.no_grad():
        one, other = network.attention_weights(pictures(spec), iter([2, 0]))
        whole = network.attention_weights(pictures(spec))
    assert torch.equal(one, whole[2])
    assert torch.equal(other, whole[0])


def test_a_resized_copy_stays_frozen():
    network = build(
        ModelSpec(name="x", size=16, patch=8, width=32, depth=1, heads=2, mlp_width=8, classes=3)
    )
    network.blocks.requires_grad_(False)
    copy = network.resized((32, 32))
    for name, parameter in network.named_parameters():
        assert copy.get_parameter(name).requires_grad == parameter.requires_grad


def test_a_bit_takes_no_noise():
    with pytest.raises(SpecError, match="no dropout or drop path"):
        build(model("BiT-R26x1", size=64, classes=2), Dropouts(drop_path=0.1))


@pytest.mark.parametrize("positions", ["sincos2d", "learned", "none", "rope2d"])
@pytest.mark.parametrize("tokens", [True, False])
def test_the_residual_stream_keeps_its_precision_under_autocast(positions, tokens):
    spec = tiny(positions=positions, class_token=tokens, pool="cls" if tokens else "mean")
    network = build(spec)
    with torch.autocast("cpu", torch.bfloat16):
        seen = network.features(torch.randn(2, 3, 32, 48), blocks=range(spec.depth + 1))
    assert {tokens.dtype for tokens in seen.per_block.values()} == {torch.float32}


@pytest.mark.parametrize("positions", POSITIONS)
def test_attending_is_forward_with_its_attention_in_the_graph(positions):
    turn = itertools.count()
    for at, end, changes, _ in combinations(positions, all_of_them=False):
        if refused(positions, at):
            continue
        spec = tiny(positions=positions, positions_at=at, **ENDS[end], **changes)
        model, images = randomised(spec, seed=next(turn)), pictures(spec)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        logits, weights = model.forward_with_attention(images.requires_grad_())
        torch.testing.assert_close(logits, model(images))
        blocks, pooling = weights[: spec.depth], weights[spec.depth :]
        for block, expected in zip(blocks, model.attention_weights(images), strict=True):
            torch.testing.assert_close(block, expected)
        assert len(pooling) == (0 if spec.readout == ((0, "cls"),) else len(spec.readout))
        for weight in weights:
            torch.testing.assert_close(weight.sum(-1), torch.ones_like(weight.sum(-1)))
        slopes = torch.autograd.grad(logits[:, 2].sum(), weights)
        assert all(slope.isfinite().all() and slope.abs().max() > 0 for slope in slopes)
        with torch.no_grad():
            torch.testing.assert_close(model.forward_with_attention(images)[0], logits.detach())


def test_decoded_reads_tokens_as_the_last_are_read():
    for end in ENDS.values():
        spec = tiny(**end)
        model, images = randomised(spec), pictures(spec)
        tokens = model.features(images, range(spec.depth + 1)).per_block
        torch.testing.assert_close(model.logits_from_tokens(*tokens.values()), model(images))
        alone = [tokens[spec.depth]] * spec.pool_blocks
        expected = model.logits_from_tokens(*alone)
        torch.testing.assert_close(model.logits_from_tokens(tokens[spec.depth]), expected)
