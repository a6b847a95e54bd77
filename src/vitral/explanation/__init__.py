"""What a model looks at: relevance, rollout, attention distance, pictures, and whether it is so."""

from vitral.drawing.pictures import overlay
from vitral.explanation.attention import attention_distance, heatmap, patches_only, rollout
from vitral.explanation.explain import Explanation, explain
from vitral.explanation.request import Question

__all__ = [
    "Explanation",
    "Question",
    "attention_distance",
    "explain",
    "heatmap",
    "overlay",
    "patches_only",
    "rollout",
]
