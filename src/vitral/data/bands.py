"""The range of values of pictures of many bands, so that the three that are shown fill 8 bits.

A satellite's reflectances end near 10,000 of the 65,535 that 16 bits hold; scaled by what they
hold, field and forest would be a few grey levels apart. So the range is measured once, on training
images alone, and travels with the preprocessing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from vitral.data.sources import Split
from vitral.errors import DataError
from vitral.images import tiff
from vitral.images.decode_errors import translating

_IMAGES = 256
_VALUES = 4096  # of each image that count
_PERCENTILES = (0.1, 99.9)


def value_range(split: Split, bands: Sequence[int]) -> tuple[float, float] | None:
    """Measures the values of three bands that become black and white, over 256 images of a split.

    They are the quantiles 0.1 % and 99.9 % of all three bands together: colours keep their
    proportions. None where the images have 8 bits, or are no TIFFs. Raises DataError for a band
    that an image does not have.
    """
    chosen = np.unique(np.linspace(0, len(split) - 1, _IMAGES).astype(int))
    pooled: list[np.ndarray] = []
    for index in chosen.tolist():
        data = split.read(index)
        if not isinstance(data, bytes) or not tiff.is_tiff(data):
            continue
        header = tiff.read_header(io.BytesIO(data))
        if header is None or header.obstacle or header.bits == 8:
            continue
        try:
            with translating(data):
                values = tiff.read_bands(data, header, bands)
        except DataError as error:
            raise DataError(f"{split.key(index)}: {error}") from None
        finite = values[np.isfinite(values)]
        pooled.append(finite[:: max(1, finite.size // _VALUES)])
    values = np.concatenate(pooled) if pooled else np.zeros(0)
    if not values.size:
        return None
    low, high = (float(f"{value:.6g}") for value in np.percentile(values, _PERCENTILES))
    return (low, high) if high > low else None
