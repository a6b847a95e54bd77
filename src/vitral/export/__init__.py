"""Export: a trained network for another runtime, with a proof in that runtime.

Imports loading, evaluation, engines, weights and data; the command line alone imports it. One file
writes each kind of folder, `run` computes with it as its user would, `proof` compares.
"""
