"""A training step of Vitral through its own loop's `step`, and the same step around any network.

Both have the same loss, clipping and AdamW. Vitral's takes bytes of pixels, as from its loader, and
tells what it measured; the others' are handed floats, and tell nothing.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.data.sources import Arrays, Dataset, Split
from vitral.engines.base import Precision
from vitral.specs import ImageSpec, ModelSpec
from vitral.training import trailing
from vitral.training.display import Display
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.duration import steps
from vitral.training.loggers import Loggers
from vitral.training.recipe import Data, Recipe, Schedule
from vitral.training.session import RunContext, Session, begin_run
from vitral.training.step import read, step
from vitral.training.trailing import UnreadStep

Step = Callable[[], object]
RATE = 1e-3
DECAY = 0.05


def noise(spec: ModelSpec, count: int) -> Dataset:
    """So many images of noise, with labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *spec.size, 3), dtype=np.uint8)
    names = tuple(str(number) for number in range(count))
    rows = np.arange(count)
    split = Split("train", rows % spec.classes, rows, Arrays(pixels, names))
    classes = tuple(str(number) for number in range(spec.classes))
    return Dataset("noise", "noise", classes, split, split, (), "noise")


def session_of(
    spec: ModelSpec, batch: int, *, precision: Precision, device: torch.device, compiles: bool
) -> Session:
    """What `vitral train` would begin: no changes of the images, the usual AdamW and clipping."""
    data = noise(spec, batch)
    recipe = Recipe(
        model=spec,
        images=ImageSpec(size=spec.size),
        data=Data(source="noise", batch=batch, workers=0),
        schedule=Schedule(kind="constant", warmup=steps(0)),
        length=steps(1_000_000),
        precision=precision,
        compile=compiles,
    )
    context = RunContext(
        recipe=recipe,
        data=data,
        weights=None,
        out=Path("nowhere"),
        group=ProcessGroup(device),
        display=Display(quiet=True),
        loggers=Loggers((), Path("nowhere"), {}),
    )
    torch.manual_seed(0)
    return begin_run(context)


def our_step(
    spec: ModelSpec,
    batch: int,
    *,
    precision: Precision,
    device: torch.device,
    compiles: bool = False,
) -> Step:
    """Vitral's step on the same images again, read as late as the loop reads it."""
    session = session_of(spec, batch, precision=precision, device=device, compiles=compiles)
    split = session.run.data.train
    images = np.stack([split.read(number) for number in range(batch)])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    places = tuple(range(batch))
    ready = Batch((pixels,), torch.from_numpy(split.labels), torch.arange(batch), places=places)
    under_way: deque[UnreadStep] = deque()

    def take() -> None:
        under_way.append(step(session, [ready]))
        session.progress.step += 1
        if len(under_way) > trailing.steps_behind(device):
            read(session, under_way.popleft())

    return take


def step_of(
    network: nn.Module, spec: ModelSpec, batch: int, *, precision: str, device: torch.device
) -> Step:
    """The same step around a network whose forward gives logits: fused AdamW, no number read."""
    network = network.to(device).train()
    kernels = [p for p in network.parameters() if p.ndim >= 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    images = torch.randn(batch, spec.channels, *spec.size, device=device)
    labels = torch.arange(batch, device=device) % spec.classes

    def take() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            answer = network(images)
        logits = answer if isinstance(answer, Tensor) else answer.logits
        nn.functional.cross_entropy(logits.float(), labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take
