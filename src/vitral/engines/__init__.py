"""Ready tensors in, logits or representations out: each engine computes the same network.

Imports weights, model and machine; evaluation, explanation and above may import it.
"""
