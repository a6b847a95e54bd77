"""Ready tensors in, logits out: each engine computes the same network in its own way.

Imports weights, model and data; evaluation, explanation and above may import it.
"""
