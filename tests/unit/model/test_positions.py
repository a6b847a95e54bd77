import math
from dataclasses import replace

import pytest
import torch
from networks import pictures, randomised, tiny

from vitral.errors import ModelError
from vitral.model import build
from vitral.model.positions import (
    RULES,
    position_context,
    relative_index,
    resample,
    rotate,
    rotation,
    sincos2d,
)
from vitral.specs import ModelSpec

DOUBLE = torch.zeros((), dtype=torch.float64)


def table(rows, columns, width=5, tables=1):
    return torch.randn(tables, rows * columns, width, dtype=torch.float64)


@pytest.mark.parametrize("new", [7, 16, 24, 37])
def test_the_authors_rule_is_scipys_zoom(new):
    scipy = pytest.importorskip("scipy.ndimage")
    old = table(14, 14)
    zoomed = scipy.zoom(old[0].reshape(14, 14, 5).numpy(), (new / 14, new / 14, 1), order=1)
    ours = resample(old, (14, 14), (new, new), "google")
    assert (ours[0] - torch.from_numpy(zoomed).reshape(-1, 5)).abs().max() < 1e-5


def test_the_authors_rule_keeps_the_corners():
    old = table(14, 10)
    new = resample(old, (14, 10), (24, 33), "google")[0].reshape(24, 33, 5)
    grid = old[0].reshape(14, 10, 5)
    for i, j in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert torch.allclose(new[i, j], grid[i, j], atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_the_same_grid_is_the_identity(rule):
    old = table(14, 14)
    assert resample(old, (14, 14), (14, 14), rule) is old


def test_the_four_rules_are_four():
    old = table(6, 6)
    results = [resample(old, (6, 6), (9, 4), rule) for rule in RULES]
    for i, first in enumerate(results):
        assert first.shape == (1, 36, 5)
        for second in results[:i]:
            assert (first - second).abs().max() > 1e-3


def test_every_table_is_resampled_by_itself():
    old = table(4, 6, tables=3)
    together = resample(old, (4, 6), (5, 5), "timm")
    for i in range(3):
        alone = resample(old[i : i + 1], (4, 6), (5, 5), "timm")
        assert torch.allclose(together[i : i + 1], alone, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", RULES)
def test_half_precision_tables_resample_too(rule, dtype):
    old = table(4, 4)
    new = resample(old.to(dtype), (4, 4), (6, 6), rule)
    assert new.dtype == dtype
    assert (new - resample(old, (4, 4), (6, 6), rule)).abs().max() < 0.05


@pytest.mark.parametrize("positions", ["learned", "learned2d"])
def test_class_and_distillation_rows_are_untouched(positions):
    spec = tiny(positions=positions, distillation_token=True, registers=2)
    network = randomised(spec)
    full = network.positions(spec.grid, DOUBLE)
    other = network.positions((5, 7), DOUBLE)
    assert full.shape == (1, 10, 32) and other.shape == (1, 39, 32)
    assert torch.equal(full[:, :2], other[:, :2]) and full[:, :2].any()
    assert not full[:, 2:4].any() and not other[:, 2:4].any()  # registers have none


@pytest.mark.parametrize("positions", ["learned", "learned2d"])
@pytest.mark.parametrize("first", [{"distillation_token": True}, {"class_token": False}])
def test_registers_may_have_rows_that_no_resize_touches(positions, first):
    pool = "cls" if first.get("class_token", True) else "mean"
    spec = tiny(positions=positions, pool=pool, registers=3, register_positions=True, **first)
    network, before = randomised(spec), spec.prefix
    full = network.positions(spec.grid, DOUBLE)
    other = network.positions((5, 7), DOUBLE)
    assert full.shape == (1, before + 6, 32) and other.shape == (1, before + 35, 32)
    assert full[:, :before].any(dim=2).all() and torch.equal(full[:, :before], other[:, :before])
    resized = network.resized((80, 112)).positions(spec.grid_at((80, 112)), DOUBLE)
    assert torch.equal(resized, other)
    bare = randomised(replace(spec, register_positions=False))
    assert not bare.positions(spec.grid, DOUBLE)[:, before - 3 : before].any()


def test_learned2d_joins_a_column_and_a_row():
    spec = tiny(positions="learned2d")
    positions = randomised(spec).positions
    rows = positions((2, 3), DOUBLE)[0]
    assert torch.equal(rows[0], positions.prefix[0, 0])
    for r in range(2):
        for c in range(3):
            expected = torch.cat([positions.columns[0, c], positions.rows[0, r]])
            assert torch.equal(rows[1 + r * 3 + c], expected)


def written_out(form: str, width: int, row: int, column: int) -> list[float]:
    quarter = width // 4
    steps = quarter - 1 if form == "sincos2d" else quarter
    omega = [10000 ** (-i / steps) for i in range(quarter)]
    return [wave(p * o) for p in (column, row) for wave in (math.sin, math.cos) for o in omega]


@pytest.mark.parametrize("form", ["sincos2d", "sincos2d_mae"])
def test_sincos_is_the_published_formula(form):
    spec = tiny(positions=form, width=32)
    ours = sincos2d(spec, (3, 5), DOUBLE)[0]
    for row in range(3):
        for column in range(5):
            expected = torch.tensor(written_out(form, 32, row, column), dtype=torch.float64)
            assert (ours[row * 5 + column] - expected).abs().max() < 1e-12


def test_big_visions_lowest_frequency_is_exactly_one_in_ten_thousand():
    ours = sincos2d(tiny(positions="sincos2d"), (1, 2), DOUBLE)[0, 1]
    assert ours[0].item() == pytest.approx(math.sin(1), abs=1e-15)
    assert ours[7].item() == pytest.approx(math.sin(1e-4), abs=1e-15)
    mae = sincos2d(tiny(positions="sincos2d_mae"), (1, 2), DOUBLE)[0, 1]
    assert mae[7].item() == pytest.approx(math.sin(10000 ** (-7 / 8)), abs=1e-15)


def test_fixed_positions_are_no_weights_and_follow_the_grid():
    spec = tiny(positions="sincos2d")
    network = build(spec)
    assert not [name for name in network.state_dict() if name.startswith("positions")]
    rows = network.positions((4, 4), DOUBLE)
    assert not rows[:, 0].any() and rows.shape == (1, 17, 32)  # none for the class token


def turned(spec: ModelSpec, row: int, column: int, grid: tuple[int, int], q: list[float]):
    """DINOv3's rotation written out with plain numbers."""
    head = len(q)
    quarter = head // 4
    y, x = 2 * (row + 0.5) / grid[0] - 1, 2 * (column + 0.5) / grid[1] - 1
    angles = [2 * math.pi * p / 100 ** (i / quarter) for p in (y, x) for i in range(quarter)] * 2
    half = [-value for value in q[head // 2 :]] + q[: head // 2]
    return [a * math.cos(t) + b * math.sin(t) for a, b, t in zip(q, half, angles, strict=True)]


def test_rope_is_dinov3s_formula():
    spec = tiny(positions="rope2d", head_width=8, registers=1)
    x = torch.randn(2, 4, 2 + 15, 8, dtype=torch.float64)
    out = rotate(x, rotation(spec, (3, 5), DOUBLE))
    assert torch.equal(out[:, :, :2], x[:, :, :2])  # class token and register stay
    for row in range(3):
        for column in range(5):
            token = 2 + row * 5 + column
            expected = turned(spec, row, column, (3, 5), x[1, 2, token].tolist())
            assert out[1, 2, token].tolist() == pytest.approx(expected, abs=1e-12)


def test_rope_keeps_lengths_and_depends_on_differences():
    spec = tiny(positions="rope2d")
    q = torch.randn(8, dtype=torch.float64).expand(1, 1, 16, 8)
    out = rotate(q, rotation(spec, (4, 4), DOUBLE))
    assert torch.allclose(out.norm(dim=-1), q.norm(dim=-1))
    scores = (out @ out.mT)[0, 0]
    assert scores[0, 1].item() == pytest.approx(scores[1, 2].item())  # one column to the right
    assert scores[0, 5].item() == pytest.approx(scores[5, 10].item())  # one down, one right


def test_raster_offsets_skip_what_has_no_position():
    with_class = relative_index(tiny(registers=1), DOUBLE)  # class, register, 2x3 patches
    assert with_class.shape == (8, 8)
    assert (with_class[1] == -1).all() and (with_class[:, 1] == -1).all()
    assert with_class[0, 0] == with_class[7, 7] == 6 and with_class[7, 0] == 12
    with_both = relative_index(tiny(registers=1, register_positions=True), DOUBLE)
    rows = torch.arange(8)
    assert torch.equal(with_both, rows[:, None] - rows + 7)
    patches_only = relative_index(tiny(prefix_positions=False), DOUBLE)
    assert (patches_only[0] == -1).all() and patches_only[1, 6] == 0 and patches_only[6, 1] == 10


def test_relative_positions_cannot_be_resized_and_say_so():
    spec = tiny(positions="relative")
    network, images = randomised(spec), pictures(tiny(size=(48, 48)))
    with pytest.raises(ModelError, match="cannot be resized"):
        network(images, any_size=True)
    with pytest.raises(ModelError, match="cannot be resized"):
        network.resized((48, 48))
    assert position_context(spec, spec.grid, DOUBLE).relative_index.shape == (7, 7)
