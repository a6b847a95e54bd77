"""Planning: a request becomes a recipe, its data and weights, its time and memory; then it runs.

Imports recipes and training; only cli (and later studies and serving) may import it.
"""
