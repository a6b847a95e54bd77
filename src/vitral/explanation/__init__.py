"""What a model looks at: relevance, rollout, attention distance, pictures, and whether it is so."""

from vitral.explanation.attention import attention_distance, heatmap, patches_only, rollout
from vitral.explanation.explanation import Explanation, explain
from vitral.explanation.panes import overlay
from vitral.explanation.question import Question

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
