"""DeiT-S/16 with a distillation token: it learns from the labels and from a teacher's answers.

    vitral train IMAGENET/ --recipe deit-distilled --set objective.teacher=WEIGHTS

Source: Touvron et al. 2020 (arXiv:2012.12877), section 4 and Table 9: hard distillation, half of
the loss. The teacher is any run, artifact or id whose classes are these; theirs was a RegNetY-16GF,
better than a ViT. Others: --model deit_tiny_distilled_patch16_224, deit_base_distilled_patch16_224.
Result: 81.2 % on ImageNet (tiny 74.5, base 83.4), with both heads averaged.
"""

from dataclasses import replace

from vitral import catalog
from vitral.recipes.deit import recipe as deit
from vitral.training.recipe import Classification

recipe = replace(
    deit,
    model=catalog.model("deit_small_distilled_patch16_224"),
    objective=Classification(
        label_smoothing=0.1, teacher="TEACHER", distill="hard", distill_share=0.5
    ),
)
