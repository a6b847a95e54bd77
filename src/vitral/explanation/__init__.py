"""What a model looks at: attention rollout, attention distance, and pictures of them."""

from vitral.explanation.attention import attention_distance, heatmap, patches_only, rollout
from vitral.explanation.explanation import Explanation, explain
from vitral.explanation.panes import overlay

__all__ = [
    "Explanation",
    "attention_distance",
    "explain",
    "heatmap",
    "overlay",
    "patches_only",
    "rollout",
]
