"""Explanations: the patches that an answer needs, where a model attends, and a test of that."""

from vitral.drawing.pictures import overlay
from vitral.explanation.attention import attention_distance, patches_only, rollout
from vitral.explanation.findings import Findings
from vitral.explanation.image_analysis import Explanation, explain
from vitral.explanation.request import ExplainRequest

__all__ = [
    "ExplainRequest",
    "Explanation",
    "Findings",
    "attention_distance",
    "explain",
    "overlay",
    "patches_only",
    "rollout",
]
