"""Explanations: the patches that an answer needs, where a model attends, and a test of that."""

from vitral.explanation.image_analysis import Explanation, explain
from vitral.explanation.request import ExplainRequest

__all__ = ["ExplainRequest", "Explanation", "explain"]
