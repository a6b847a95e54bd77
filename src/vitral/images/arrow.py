"""A PIL image's own memory as an array, without a copy: the Arrow C data interface of Pillow.

Copying out of Pillow packs four bytes a pixel into three, which takes as long as resizing a small
crop. The structures are those of arrow.apache.org/docs/format/CDataInterface.html.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from PIL import Image


class _ArrowArray(ctypes.Structure):
    pass


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_pointer.restype = ctypes.c_void_p


class _Pixels:
    """What numpy asks for an array; it keeps the capsule, and with it the image's memory."""

    def __init__(self, image: Image.Image, capsule: Any) -> None:
        self._capsule = capsule
        array = _ArrowArray.from_address(_pointer(capsule, b"arrow_array"))
        count = image.width * image.height
        if array.n_children != 1 or array.length != count or array.offset:
            raise ValueError("not lists of channels")
        values = array.children[0].contents
        if values.n_buffers != 2 or values.length != 4 * count or values.offset:
            raise ValueError("not four bytes to a pixel")
        self.__array_interface__ = {
            "shape": (image.height, image.width, 4),
            "typestr": "|u1",
            "data": (values.buffers[1], False),
            "version": 3,
        }


def channels(image: Image.Image) -> np.ndarray:
    """Shows the memory of an RGB image as uint8 (H, W, 4): red, green, blue and a padding channel.

    It is the image's own, not to be written to; (H, W, 3), copied, where it cannot be had.
    """
    try:
        capsule = image.__arrow_c_array__()[1]
        return np.asarray(_Pixels(image, capsule))
    except (AttributeError, ValueError):  # Pillow before 11.2; a large image in several blocks
        return np.array(image)
