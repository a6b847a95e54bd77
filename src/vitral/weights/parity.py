"""The proof that converted weights are the same network: both libraries on the same images.

The format's library is looked for when the proof is made, and never needed for anything else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import torch
from torch import Tensor

from vitral.images import augment
from vitral.specs import ModelSpec
from vitral.weights import artifact, formats
from vitral.weights.formats.base import Config, NotComparableError
from vitral.weights.rename import RenameTable

IMAGES = 2


def difference(
    table: RenameTable,
    spec: ModelSpec,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    config: Config,
) -> tuple[float, float]:
    """Return max |delta logit| between our network and the format's, and max |logit|.

    Both networks answer the same random images.

    `theirs` are under the names that the format writes; `config` is its config.json, empty without.

    Raises NotComparableError where the library is not installed, or cannot build this network.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        images = torch.randn(IMAGES, spec.channels, *spec.size)
        augment.transforms()  # makes torchvision importable beside another torch, which timm needs
        unread = StringIO()  # other libraries warn about what we check ourselves
        try:
            with warnings.catch_warnings(), redirect_stderr(unread), redirect_stdout(unread):
                warnings.simplefilter("ignore")
                oracle = formats.named(table.format).oracle(spec, theirs, config)
                answer = artifact.network(ours, spec)(images)
                other = oracle(images)
        except NotComparableError:
            raise
        except ImportError as error:
            raise NotComparableError(f"{table.format} is not installed ({error})") from None
        except Exception as error:  # another library, of any version
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            raise NotComparableError(
                f"{table.format} could not run it: {type(error).__name__} {reason}"
            ) from None
    return float((answer - other).abs().max()), float(other.abs().max())
