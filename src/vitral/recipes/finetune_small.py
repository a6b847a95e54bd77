"""Fine-tuning of shallow networks, such as scratch-small makes: the default with `--from` of those.

    vitral train PHOTOS/ --from RUN

As finetune, but at three times the rate and alike in every layer: finetune's careful rates are
those of deep networks that saw millions of images (arXiv:2106.08254, arXiv:2111.06377). On five
classes of imagenette after five others (a hybrid of four blocks, 200 steps of 64): 70.6 % instead
of 59.1 with 100 photographs of each class, 61.5 % instead of 50.3 with 20. Each of the two does a
part: its rate alone (1.5e-3, not 3.5e-4) gives 67.8 and 54.9 %, even layers alone 63.2 and 56.6 %.
Result: that.
"""

from dataclasses import replace

from vitral.recipes import finetune
from vitral.training.recipe import Recipe


def _bolder(full: Recipe) -> Recipe:
    optimizer = replace(full.optimizer, lr=3 * full.optimizer.lr, layer_decay=1.0)
    return replace(full, optimizer=optimizer)


recipe = _bolder(finetune.recipe)


def rule(count: int, size: tuple[int, int]) -> Recipe:
    """The lengths of finetune."""
    return _bolder(finetune.rule(count, size))
