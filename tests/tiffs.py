"""TIFFs of any number of bands, written tag by tag, since no library of ours writes them."""

from __future__ import annotations

import struct
import zlib

import numpy as np

FORMATS = {"u": 1, "i": 2, "f": 3, "c": 6}


def tiff(  # noqa: C901 - a file format, tag by tag
    values: np.ndarray,
    *,
    order: str = "<",
    planar: bool = False,
    deflate: bool = False,
    differences: bool = False,
    tile: int = 0,
    rows: int = 0,
    extra: tuple[tuple[int, list[int]], ...] = (),
) -> bytes:
    """A TIFF of (height, width, bands) of any type; strips of `rows`, or tiles of `tile` pixels."""
    height, width, bands = values.shape
    parts = [values[:, :, [band]] for band in range(bands)] if planar else [values]
    blocks = []
    for part in parts:
        down = tile or rows or height
        across = tile or width
        for top in range(0, height, down):
            for left in range(0, width, across):
                block = part[top : top + down, left : left + across]
                if tile:
                    whole = np.zeros((tile, tile, part.shape[2]), part.dtype)
                    whole[: block.shape[0], : block.shape[1]] = block
                    block = whole
                if differences and values.dtype.kind == "f":
                    stored = np.ascontiguousarray(block).astype(block.dtype.newbyteorder(">"))
                    planes = stored.view(np.uint8).reshape(len(block), -1, values.itemsize)
                    count = block.shape[2]
                    block = planes.transpose(0, 2, 1).reshape(len(block), -1, count)
                    block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
                elif differences:
                    block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
                blocks.append(block.astype(block.dtype.newbyteorder(order)).tobytes())
    if deflate:
        blocks = [zlib.compress(block) for block in blocks]
    bits = 8 * values.dtype.itemsize
    head = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    offsets = []
    body = b""
    for block in blocks:
        offsets.append(len(head) + len(body))
        body += block + bytes(len(block) % 2)
    counts = [len(block) for block in blocks]
    predictor = 1 + differences * (1 + (values.dtype.kind == "f"))
    tags = {256: [width], 257: [height], 258: [bits] * bands, 259: [8 if deflate else 1]}
    tags |= {262: [1], 277: [bands], 284: [2 if planar else 1], 317: [predictor]}
    tags |= {339: [FORMATS[values.dtype.kind]] * bands}
    if tile:
        tags |= {322: [tile], 323: [tile], 324: offsets, 325: counts}
    else:
        tags |= {273: offsets, 278: [rows or height], 279: counts}
    tags |= dict(extra)
    at = len(head) + len(body)
    beyond = at + 2 + 12 * len(tags) + 4
    entries = b""
    long = b""
    for tag, numbers in sorted(tags.items()):
        kind = 4 if tag in (256, 257, 273, 278, 279, 324, 325) else 3
        packed = struct.pack(f"{order}{len(numbers)}{'I' if kind == 4 else 'H'}", *numbers)
        value = packed.ljust(4, b"\0")
        if len(packed) > 4:
            value = struct.pack(f"{order}I", beyond + len(long))
            long += packed
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + value
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + long
    return head[:4] + struct.pack(f"{order}I", at) + body + directory
