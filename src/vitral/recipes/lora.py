"""Fine-tuning by low-rank updates (LoRA): little memory, and a plain artifact in the end.

    vitral train PHOTOS/ --from timm/vit_small_patch16_224.augreg_in21k --tune lora

As finetune, but rank-8 updates of the qkv and out of every block learn (Hu et al. 2021,
arXiv:2106.09685), at ten times the rate and alike in every layer, as their small number allows: on
the photographs of finetune-small, 100 of each class, 63.0 %; a third of that rate gives 56.6, three
times as much 45.8 %.
Result: that.
"""

from dataclasses import replace

from vitral.recipes import finetune
from vitral.training.recipe import LORA_RANK, Recipe, Tune


def _tuned(full: Recipe) -> Recipe:
    optimizer = replace(full.optimizer, lr=10 * full.optimizer.lr, layer_decay=1.0)
    return replace(full, tune=Tune("lora", rank=LORA_RANK), optimizer=optimizer)


recipe = _tuned(finetune.recipe)


def rule(count: int, size: tuple[int, int]) -> Recipe:
    """The lengths of finetune."""
    return _tuned(finetune.rule(count, size))
