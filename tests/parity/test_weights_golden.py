"""The authors' own code, recorded on random weights, through the converter and back."""

from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch

from checkpoints import arrays
from vitral.weights import artifact
from vitral.weights.convert import convert

RECORDED: dict[str, dict[str, Any]] = {
    "vitjax_token_48x80": {"size": (48, 80)},
    "vitjax_hybrid_64x64": {},
    "bv_gap_sincos_rep": {"size": (48, 80)},
    "bv_map_scan": {},
    "bit_paper_64x64": {"changes": ["model.resnet.root_pool=infinite"]},
}


def parameters(name: str, path: Path) -> Path:
    """The recording's parameters alone, as its authors' file would hold them."""
    golden.recording(name)  # skips where the recordings are not
    with np.load(golden.GOLDEN / f"{name}.npz") as file:
        np.savez(path, **{key: file[key] for key in file.files if key not in golden.NOT_WEIGHTS})
    return path


def answered(folder: Path, images: torch.Tensor) -> torch.Tensor:
    values, card = artifact.load_tensors(folder)
    network = artifact.network({k: x.double() for k, x in values.items()}, card.model)
    with torch.inference_mode():
        return network(images, any_size=card.model.is_resnet)


@pytest.mark.parametrize("name", RECORDED)
def test_the_authors_logits_and_their_own_file_again(tmp_path: Path, name: str) -> None:
    first = parameters(name, tmp_path / "first.npz")
    recorded = golden.recording(name)
    done = convert(first, tmp_path / "ours", **RECORDED[name])
    assert done.exact and done.left_over == 0
    answer = answered(tmp_path / "ours", recorded.images)
    assert recorded.logits.std() > 0.1
    assert (answer - recorded.logits).abs().max() < 1e-11
    convert(tmp_path / "ours", tmp_path / "again.npz", to="google")
    before, after = arrays(first), arrays(tmp_path / "again.npz")
    assert before.keys() == after.keys()
    for key, array in before.items():
        assert (array.dtype, array.shape) == (after[key].dtype, after[key].shape)
        assert array.tobytes() == after[key].tobytes()


def test_bit_without_a_word_is_its_own_code(tmp_path: Path) -> None:
    """BiT's code pads the root's pool with zeros, big_vision's with minus infinity."""
    first = parameters("bit_paper_64x64", tmp_path / "first.npz")
    recorded = golden.recording("bit_paper_64x64")
    convert(first, tmp_path / "ours")
    zero = torch.from_numpy(recorded.extra["logits64_zeropad"])
    answer = answered(tmp_path / "ours", recorded.images)
    assert (answer - zero).abs().max() < 1e-11
    assert (answer - recorded.logits).abs().max() > 1e-3


def test_bfloat16_as_googles_files_hold_it(tmp_path: Path) -> None:
    """The recorded weights are exact in bfloat16: two void bytes each lose nothing."""
    first = parameters("vitjax_token_48x80", tmp_path / "first.npz")
    halves = {
        key: (array.view(np.uint32) >> 16).astype(np.uint16).view("V2")
        for key, array in arrays(first).items()
    }
    np.savez(tmp_path / "half.npz", **halves)
    assert (tmp_path / "half.npz").stat().st_size < 0.6 * first.stat().st_size
    for name in ("first", "half"):
        convert(tmp_path / f"{name}.npz", tmp_path / name, size=(48, 80))
    images = golden.recording("vitjax_token_48x80").images
    answers = [answered(tmp_path / name, images) for name in ("first", "half")]
    assert torch.equal(*answers)
    convert(tmp_path / "half", tmp_path / "again.npz", to="google")
    again = arrays(tmp_path / "again.npz")
    assert all(again[key].tobytes() == array.tobytes() for key, array in halves.items())
    assert {array.dtype.str for array in again.values()} == {"|V2"}
