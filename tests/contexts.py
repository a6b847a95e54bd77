"""The context of a run in this process alone."""

from pathlib import Path

import torch

from vitral.data.sources import Dataset
from vitral.training.display import Display
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.loggers import Loggers
from vitral.training.recipe import Recipe
from vitral.training.session import RunContext


def context(recipe: Recipe, data: Dataset, out: Path, display: Display) -> RunContext:
    return RunContext(
        recipe=recipe,
        data=data,
        weights=None,
        out=out,
        group=ProcessGroup(torch.device("cpu")),
        display=display,
        loggers=Loggers((), out, {}),
    )
