from collections import Counter
from dataclasses import replace

import pytest
import torch

from checkpoints import CASES, HELD, same, tensors, theirs
from vitral.errors import WeightsError
from vitral.weights.axes import Shape
from vitral.weights.rename import Layout, fitting_tables, tables
from vitral.weights.write import layout_for, table_for


@pytest.mark.parametrize("name", tables())
def test_no_name_stands_twice_in_a_table(name):
    table = tables()[name]
    assert max(Counter(row.ours for row in table.rows).values()) == 1
    names = Counter(part for row in table.rows for part in row.theirs if part != "0")
    assert max(names.values()) == 1
    assert all(len(row.parts) == len(row.theirs) for row in table.rows)


def test_every_table_is_held_by_a_case():
    held = {table_for(format, HELD[format][name]).name for format, name in CASES}
    own = {name for name, table in tables().items() if table.format == "vitral"}  # read alone
    assert held == set(tables()) - own


def shape_of(spec) -> Shape:
    """What a person says of flattened patches."""
    return Shape() if spec.is_resnet else Shape(channels=spec.channels, patch=spec.patch)


@pytest.mark.parametrize(("format", "name"), CASES)
def test_a_file_is_of_one_table_and_reads_back(format, name):
    spec = HELD[format][name]
    table, file = table_for(format, spec), theirs(format, spec)
    assert fitting_tables(file) == [table]
    reading = table.read(file, shape_of(spec))
    assert same(reading.ours, tensors(spec))
    assert not reading.unexpected_keys and not reading.missing_keys and not reading.ignored_keys
    layout = layout_for(table, spec)
    assert replace(reading.layout, variants=layout.variants) == layout
    assert set(reading.layout.variants) <= set(layout.variants)  # a name that is not there
    assert same(table.write(reading.ours, spec.heads, reading.layout, reading.passthrough), file)


@pytest.mark.parametrize(("format", "name"), CASES)
def test_a_foreign_tensor_is_left_over(format, name):
    spec = HELD[format][name]
    file = theirs(format, spec)
    for foreign in ("ema_decay", "blocks.0.mlp.w12.weight", "norm_pre.weight", "head.5.weight"):
        reading = table_for(format, spec).read({**file, foreign: torch.ones(3)}, shape_of(spec))
        left = [name.removeprefix("backbone.") for name in reading.unexpected_keys]
        assert left == [foreign]


def test_a_part_that_is_missing_is_named():
    file = theirs("transformers", HELD["transformers"]["token"])
    gone = "vit.encoder.layer.1.attention.attention.key.bias"
    reading = tables()["transformers_vit"].read({k: x for k, x in file.items() if k != gone})
    assert reading.missing_keys == (f"{gone.removeprefix('vit.')} of blocks.1.attention.qkv.bias",)
    assert "blocks.1.attention.qkv.bias" not in reading.ours


def test_parts_of_different_shapes_or_types_are_refused():
    file = theirs("transformers", HELD["transformers"]["token"])
    name = "vit.encoder.layer.1.attention.attention.key.weight"
    for wrong in (torch.ones(32, 31), file[name].half()):
        with pytest.raises(
            WeightsError, match=r"parts of blocks\.1\.attention\.qkv\.weight do not"
        ):
            tables()["transformers_vit"].read({**file, name: wrong})


def test_two_names_of_one_tensor_are_not_merged():
    """linen's LayerNorm_1 stands for LayerNorm_2; a file with both is no such file."""
    file = theirs("google", HELD["google"]["token"])
    extra = "Transformer/encoderblock_0/LayerNorm_1/scale"
    assert tables()["google_vit"].read({**file, extra: torch.ones(32)}).unexpected_keys == (extra,)
    file = theirs("timm", HELD["timm"]["token"])
    reading = tables()["timm_vit"].read({**file, "fc_norm.weight": torch.ones(32)})
    assert reading.unexpected_keys == ("fc_norm.weight",) and "pool" not in reading.facts


def test_a_name_with_and_without_its_prefix_is_not_merged():
    file = theirs("transformers", HELD["transformers"]["token"])
    assert [table.name for table in fitting_tables(file)] == ["transformers_vit"]
    assert fitting_tables({**file, "embeddings.cls_token": torch.ones(1, 1, 32)}) == []


def test_other_networks_are_told_apart():
    file = {f"params/img/{k}": x for k, x in theirs("google", HELD["google"]["map"]).items()}
    tower = {"params/txt/head/kernel": torch.ones(2), "params/t": torch.ones(1)}
    reading = tables()["google_vit"].read({**file, **tower})
    assert sorted(reading.ignored_keys) == sorted(tower)
    assert not reading.unexpected_keys and reading.layout.prefix == "params/img/"


def test_dtypes_are_remembered_by_name():
    spec = HELD["timm"]["token"]
    file = theirs("timm", spec)
    table = tables()["timm_vit"]
    mixed = {k: x.half() if k.startswith("head") else x for k, x in file.items()}
    layout = table.read(mixed).layout
    assert layout.dtypes == {"head.weight": "float16", "head.bias": "float16"}
    ours = {k: x.float() for k, x in table.read(mixed).ours.items()}
    assert same(table.write(ours, spec.heads, layout, {}), mixed)
    assert table.read({k: x.bfloat16() for k, x in file.items()}).layout.dtypes == {"*": "bfloat16"}


def test_a_tensor_without_a_place_is_refused():
    table, layout = tables()["torchvision_vit"], Layout(table="torchvision_vit")
    with pytest.raises(WeightsError, match="torchvision has no place for the tensor 'registers'"):
        table.write({"registers": torch.ones(1, 2, 32)}, 4, layout, {})
    ours = tensors(HELD["timm"]["eva bias"])
    name = "blocks.0.attention.qkv.bias"
    assert not ours[name][32:64].any()
    table = tables()["timm_eva"]
    with pytest.raises(WeightsError, match="bias of the keys"):
        table.write({name: ours[name] + 1}, 4, Layout(table="timm_eva"), {})


def test_only_what_a_home_may_hold_is_kept():
    dinov3 = theirs("transformers", HELD["transformers"]["dinov3 bias"])
    kept = tables()["transformers_dinov3"].read(dinov3).passthrough
    assert set(kept) == {"embeddings.mask_token", "embeddings.register_tokens"}
    file = {**theirs("timm", HELD["timm"]["token"]), "strange": torch.ones(0)}
    reading = tables()["timm_vit"].read(file)
    assert reading.unexpected_keys == ("strange",) and not reading.passthrough


def test_a_scalar_is_no_stack_of_blocks():
    file = theirs("google", HELD["google"]["token"])
    odd = "Transformer/encoderblock/x"
    assert tables()["google_vit"].read({**file, odd: torch.ones(())}).unexpected_keys == (odd,)


def test_deit3s_authors_are_not_taken_for_dinov3():
    file = theirs("timm", HELD["timm"]["deit3"])
    authors = {
        k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): x
        for k, x in file.items()
    }
    assert [table.name for table in fitting_tables(authors)] == ["timm_vit"]
    eva = theirs("timm", replace(HELD["timm"]["eva"], registers=0))
    assert [table.name for table in fitting_tables(eva)] == ["timm_eva"]
