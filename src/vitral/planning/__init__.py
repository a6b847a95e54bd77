"""What will be run, known before it begins: a request becomes a recipe, its data, cost and memory.

Imports recipes and training; only cli (and later studies and serving) may import it.
"""
