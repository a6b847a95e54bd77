import json
import os
import pickle
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from checkpoints import HALF, same, store
from vitral.errors import WeightsError
from vitral.weights import checkpoint_files

VALUES = {"a": torch.arange(6.0).view(2, 3), "b/c": torch.ones(()), "d": torch.ones(1, 0, 2)}


@pytest.mark.parametrize("suffix", checkpoint_files.SUFFIXES)
@pytest.mark.parametrize("dtype", HALF)
def test_every_format_and_precision(tmp_path: Path, suffix: str, dtype: str) -> None:
    values = {name: x.to(HALF[dtype]) for name, x in VALUES.items()}
    source = checkpoint_files.read(store(tmp_path / f"w{suffix}", values))
    assert same(source.tensors, values)
    assert source.config is None and source.preprocessor is None


def test_numpys_other_ways_of_storing(tmp_path: Path) -> None:
    array = np.arange(6, dtype="f4").reshape(2, 3)
    np.savez_compressed(
        tmp_path / "w.npz", big=array.astype(">f4"), columns=np.asfortranarray(array)
    )
    found = checkpoint_files.read(tmp_path / "w.npz").tensors
    assert torch.equal(found["big"], torch.from_numpy(array))
    assert torch.equal(found["columns"], torch.from_numpy(array))


def test_a_folder_with_its_configuration(tmp_path: Path) -> None:
    store(tmp_path / "pytorch_model.bin", {"old": torch.ones(1)})
    store(tmp_path / "model.safetensors", VALUES)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "preprocessor_config.json").write_text('{"size": 3}')
    source = checkpoint_files.read(tmp_path)
    assert same(source.tensors, VALUES)  # the safe format first
    assert (source.config, source.preprocessor) == ({"model_type": "vit"}, {"size": 3})
    assert checkpoint_files.read(tmp_path / "model.safetensors").config == {"model_type": "vit"}


@pytest.mark.parametrize("index", checkpoint_files.INDICES)
def test_shards(tmp_path: Path, index: str) -> None:
    suffix = ".bin" if "bin" in index else ".safetensors"
    store(tmp_path / f"model-1{suffix}", {"a": VALUES["a"]})
    store(tmp_path / f"model-2{suffix}", {"b/c": VALUES["b/c"], "d": VALUES["d"]})
    places = {"weight_map": {"a": f"model-1{suffix}", "b/c": f"model-2{suffix}"}}
    (tmp_path / index).write_text(json.dumps(places))
    assert same(checkpoint_files.read(tmp_path).tensors, VALUES)
    assert same(checkpoint_files.read(tmp_path / index).tensors, VALUES)
    (tmp_path / f"model-2{suffix}").unlink()
    with pytest.raises(WeightsError, match=rf"lacks the shard model-2{suffix}"):
        checkpoint_files.read(tmp_path)
    for broken in ({}, {"weight_map": []}, {"weight_map": {}}):
        (tmp_path / index).write_text(json.dumps(broken))
        with pytest.raises(WeightsError, match="lists no shards"):
            checkpoint_files.read(tmp_path)


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        checkpoint_files.read(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"holds no checkpoint \([^)]*\)\.$"):
        checkpoint_files.read(tmp_path)
    (tmp_path / "outputs" / "checkpoint-12").mkdir(parents=True)
    (tmp_path / "outputs" / "runs").mkdir()
    store(tmp_path / "outputs" / "checkpoint-12" / "model.safetensors", VALUES)
    with pytest.raises(WeightsError, match=r"folders these do: \S*outputs/checkpoint-12; name one"):
        checkpoint_files.read(tmp_path / "outputs")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match=r"cannot be read \(.*[a-zA-Z].*\)\. It is damaged"):
        checkpoint_files.read(tmp_path / "text.pth")
    (tmp_path / "text.pth").unlink()
    store(tmp_path / "one.pth", VALUES)
    assert same(checkpoint_files.read(tmp_path).tensors, VALUES)
    store(tmp_path / "two.npz", VALUES)
    with pytest.raises(WeightsError, match=r"several checkpoints \(one.pth, two.npz\); name one"):
        checkpoint_files.read(tmp_path)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_nested_state_dicts_of_parameters(tmp_path: Path, depth: int) -> None:
    values = {"module.a": torch.nn.Parameter(torch.ones(2)), "module.b": torch.ones(3)}
    for _ in range(depth):
        values = {"epoch": 3, "model": values}
    torch.save(values, tmp_path / "w.pth")
    found = checkpoint_files.read(tmp_path / "w.pth").tensors
    assert set(found) == {"a", "b"}
    assert not any(x.requires_grad for x in found.values())


class Detector(torch.nn.Module):
    """Its class is not importable where it is read."""

    __module__ = "somebodys.detector"


def test_a_pickled_model_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    path = tmp_path / "w.pt"
    torch.save({"model": {"a": torch.ones(1)}, "args": Trap()}, path)
    with pytest.raises(WeightsError, match=r"could run code.*torch\.save\(model\.state_dict"):
        checkpoint_files.read(path)
    path.write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(WeightsError):
        checkpoint_files.read(path)
    np.savez(tmp_path / "w.npz", a=np.array([Trap()], dtype=object))
    with pytest.raises(WeightsError, match=r"object array.*never read.*numpy\.savez"):
        checkpoint_files.read(tmp_path / "w.npz")
    assert not (tmp_path / "trapped").exists()
    content = b"\x80\x02csomebodys.detector\nDetector\n)\x81."  # an object of that class
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", content)
        archive.writestr("w/version", "3\n")
    with pytest.raises(WeightsError, match=r"a whole model, as detectors are saved"):
        checkpoint_files.read(path)


@pytest.mark.parametrize("name", ["w.ckpt", "best.pth.tar", "w.pkl", "w.weights", "without"])
def test_any_ending_of_torchs_own_files(tmp_path: Path, name: str) -> None:
    for old in (False, True):
        torch.save({"a": torch.ones(2)}, tmp_path / name, _use_new_zipfile_serialization=not old)
        assert same(checkpoint_files.read(tmp_path / name).tensors, {"a": torch.ones(2)})


def test_a_state_dict_in_a_tuple(tmp_path: Path) -> None:
    torch.save(({"a": torch.ones(2)}, 3, {"optimizer": {"m": torch.ones(1)}}), tmp_path / "w.pth")
    assert same(checkpoint_files.read(tmp_path / "w.pth").tensors, {"a": torch.ones(2)})


def test_what_runs_a_network_leaves_its_names(tmp_path: Path) -> None:
    names = ["_orig_mod.module.a._checkpoint_wrapped_module.b", "_orig_mod.module.c"]
    torch.save({name: torch.ones(2) for name in names}, tmp_path / "w.pth")
    assert set(checkpoint_files.read(tmp_path / "w.pth").tensors) == {"a.b", "c"}


def test_a_program_is_no_file_of_weights(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "w.pt")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(WeightsError, match="is a TorchScript program"):
            checkpoint_files.read(tmp_path / "w.pt")
    assert not [one for one in seen if "TorchScript" in str(one.message)]
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match="is an ONNX graph"):
        checkpoint_files.read(tmp_path / "w.onnx")


REFUSED = {
    "empty.npz": (b"", "is empty"),
    "page.npz": (b"\n <!DOCTYPE html><html>Sign in</html>", "is a web page"),
    "page.pth": (b"<HTML><body>404", "is a web page"),
    "bucket.npz": (b"<?xml version='1.0'?><Error><Code>NoSuchKey", "is a web page"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "cannot be read"),
    "text.pth": (b"hello", "cannot be read"),
    "text.npz": (b"hello", "cannot be read|could run code"),
    "notes.txt": (b"hello", "none of the formats"),
    "w.safetensors": (b"\xff" * 100, "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    content, match = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=match) as caught:
        checkpoint_files.read(tmp_path / name)
    assert name in str(caught.value) and caught.value.exit_code == 4


def test_a_header_that_begins_like_a_web_page(tmp_path: Path) -> None:
    """The length of a safetensors header comes first: 15,392 bytes are b' <' and zeros."""
    values, path = {"a": torch.ones(1)}, tmp_path / "w.safetensors"
    save_file(values, path)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    frame = '"__metadata__":{"k":""},'
    fill = {"k": "x" * (15392 - length - len(frame))}
    save_file(values, path, metadata=fill)
    assert path.read_bytes()[:8] == b" <\0\0\0\0\0\0"
    assert same(checkpoint_files.read(path).tensors, values)


def test_one_array_or_no_tensor(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(WeightsError, match="is a single array"):
        checkpoint_files.read(tmp_path / "x.npz")
    np.savez(tmp_path / "t.npz", text=np.array(["a"]))
    with pytest.raises(WeightsError, match="'text' holds <U1, which is no tensor"):
        checkpoint_files.read(tmp_path / "t.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(WeightsError, match="holds no tensors"):
        checkpoint_files.read(tmp_path / "none.npz")


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    endless: dict[str, object] = {}
    endless["model"] = endless
    for values, match in (
        ({"epoch": 3, "optimizer": {}}, "is no state_dict: it holds epoch, optimizer"),
        ({"optimizer": {"state": {0: torch.ones(1)}}}, "the state of an optimizer alone"),
        ({"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": []}, "of an optimizer alone"),
        ({"model": {"a": 3}}, "is no state_dict: it holds model"),
        ({}, "is no state_dict: it holds nothing"),
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        (endless, "is no state_dict: it holds model"),
    ):
        torch.save(values, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=match):
            checkpoint_files.read(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", ["stretched", "sparse", "meta"])
def test_tensors_that_are_not_whole(tmp_path: Path, kind: str) -> None:
    """A few bytes must not ask for terabytes."""
    x = {
        "stretched": torch.zeros(1).expand(10**6, 10**6),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(3, device="meta"),
    }[kind]
    torch.save({"a": x}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="'a' is not stored whole"):
        checkpoint_files.read(tmp_path / "w.pth")


def test_a_header_that_claims_terabytes(tmp_path: Path) -> None:
    for shape in ((10**12,), (10**5, 10**5, 10**5, 10**5), (2**62, 2**62)):
        header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode() + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
        with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
            archive.writestr("a.npy", content)
        start = time.monotonic()
        with pytest.raises(WeightsError, match="cannot be read"):
            checkpoint_files.read(tmp_path / "w.npz")
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("text", ["", "[", "[]", "3", "[" * 100_000, b"\xff\xfe"])
def test_a_broken_configuration(tmp_path: Path, text: str | bytes) -> None:
    store(tmp_path / "model.safetensors", VALUES)
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WeightsError, match=r"config\.json (cannot be read|holds a)"):
        checkpoint_files.read(tmp_path)
