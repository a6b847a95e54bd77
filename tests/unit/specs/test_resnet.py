import pytest
from networks import BIT, STEM

from vitral.errors import SpecError
from vitral.specs import ResNetSpec


@pytest.mark.parametrize(
    ("blocks", "stride", "outputs"),
    [((), 4, 64), ((3,), 4, 256), ((3, 4, 9), 16, 1024), ((3, 4, 6, 3), 32, 2048)],
)
def test_stride_and_channels_follow_the_stages(blocks, stride, outputs):
    spec = ResNetSpec(blocks=blocks)
    assert (spec.stride, spec.outputs) == (stride, outputs)


def test_maps_round_up():
    spec = ResNetSpec(blocks=(1, 1))
    assert spec.map_size((64, 65)) == (8, 9)
    assert spec.map_size((1, 7)) == (1, 1)


def test_a_spec_survives_a_dictionary():
    for spec in (STEM, BIT):
        assert ResNetSpec.from_dict({**spec.to_dict(), "blocks": list(spec.blocks)}) == spec


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "v3"}, "is one of v1 | v2"),
        ({"blocks": (1, 0)}, "positive"),
        ({"width": 48}, "multiple of 32"),
        ({"width": 0}, "multiple of 32"),
        ({"norm_eps": 0.0}, "greater than 0"),
        ({"weight_eps_in": "mean"}, "is one of std | var"),
        ({"root_pool": "zero"}, "does not belong to kind 'v1'"),
        ({"kind": "v2"}, "does not belong to kind 'v2'"),
        ({"kind": "v2", "root_pool": "zero", "blocks": ()}, "at least one stage"),
    ],
)
def test_what_no_network_could_have_is_refused(changes, reason):
    with pytest.raises(SpecError) as error:
        ResNetSpec(**changes)
    assert reason in str(error.value)


def test_one_unit_counted_by_hand():
    spec = ResNetSpec(blocks=(1,), width=32)
    kernels = 49 * 3 * 32 + 32 * 32 + 9 * 32 * 32 + 32 * 128 + 32 * 128
    assert spec.parameters(3) == kernels + 2 * (32 + 32 + 32 + 128 + 128)
    per_pixel = 2 * (32 * 32 + 9 * 32 * 32 + 32 * 128 + 32 * 128)
    assert spec.flops(3, (8, 12)) == 2 * 49 * 3 * 32 * 24 + per_pixel * 6
