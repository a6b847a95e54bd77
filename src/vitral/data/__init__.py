"""Labelled images: where they are, what is wrong with them, how they are split and loaded.

Imports images, storage and specs; weights and everything above may import it.
"""
