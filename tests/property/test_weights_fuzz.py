"""Any bytes are a checkpoint or a sentence: never another exception, a hang or a full memory."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import torch

from checkpoints import HELD, said, store, theirs
from vitral import machine
from vitral.errors import WeightsError
from vitral.weights.read import read_weights

SUFFIXES = (".npz", ".safetensors", ".pth")
TIMES = 120  # changes of one file in `make test`; the proof makes ten times as many
SECONDS = 2.0
MEGABYTES = 500
CPU = torch.device("cpu")


def valid(folder: Path, suffix: str) -> tuple[bytes, dict[str, object]]:
    format = "google" if suffix == ".npz" else "timm"
    spec = HELD[format]["odd"]
    path = store(folder / f"valid{suffix}", theirs(format, spec))
    assert read_weights(path, **said(spec)).card.model.depth == 1
    return path.read_bytes(), said(spec)


def changed(content: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut off, left out, doubled or zeroed, most often where the headers are."""
    data = bytearray(content)
    near = draw.choice((64, 512, 4096, len(data)))
    end = draw.random() < 0.4  # a zip's directory is at its end
    where = [draw.randrange(min(near, len(data))) for _ in range(draw.choice((1, 1, 2, 8)))]
    where = [len(data) - 1 - i for i in where] if end else where
    match draw.randrange(6):
        case 0:
            for i in where:
                data[i] ^= 1 << draw.randrange(8)
        case 1:
            for i in where:
                data[i] = draw.randrange(256)
        case 2:
            del data[where[0] :]
        case 3:
            del data[where[0] : where[0] + draw.choice((1, 8, 100))]
        case 4:
            data[where[0] : where[0]] = data[where[0] : where[0] + draw.choice((1, 8, 100))]
        case _:
            data[where[0] : where[0] + 8] = draw.choice((b"\0", b"\xff", b"9")) * 8
    return bytes(data)


def survived(path: Path, options: dict[str, object]) -> bool:
    """Whether it could be read; what is read is whole."""
    start = time.monotonic()
    try:
        weights = read_weights(path, **options)
    except WeightsError as error:
        assert path.name in str(error) or len(str(error)) < 500
        weights = None
    assert time.monotonic() - start < SECONDS
    if weights is None:
        return False
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in weights.tensors.values())
    return True


def fuzz(folder: Path, suffix: str, times: int) -> None:
    content, options = valid(folder, suffix)
    draw = random.Random(0)
    machine.forget_peak(CPU)
    before = machine.peak_memory(CPU)
    path = folder / f"fuzzed{suffix}"
    read = 0
    for _ in range(times):
        path.write_bytes(changed(content, draw))
        read += survived(path, options)
    assert read < times, "no change was ever seen"
    assert machine.peak_memory(CPU) - before < MEGABYTES * 2**20


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_changed_file_is_read_or_refused(tmp_path: Path, suffix: str) -> None:
    fuzz(tmp_path, suffix, TIMES)


@pytest.mark.proof
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_changed_files_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    fuzz(tmp_path, suffix, 10 * TIMES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_file_is_refused(tmp_path: Path, suffix: str) -> None:
    content, options = valid(tmp_path, suffix)
    path = tmp_path / f"cut{suffix}"
    for part in (1, 7, 8, 9, 63, 511, len(content) // 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:part])
        assert not survived(path, options), f"{part} of {len(content)} bytes were enough"


@pytest.mark.parametrize("suffix", (*SUFFIXES, ".pt", ".bin"))
def test_noise_and_other_formats_are_refused(tmp_path: Path, suffix: str) -> None:
    draw = random.Random(1)
    path = tmp_path / f"noise{suffix}"
    contents = [draw.randbytes(draw.choice((1, 9, 100, 5000))) for _ in range(20)]
    for other in SUFFIXES:
        content, _ = valid(tmp_path, other)
        if other != suffix and not (other == ".pth" and suffix in (".pt", ".bin")):
            contents.append(content)
    for content in contents:
        path.write_bytes(content)
        assert not survived(path, {})
