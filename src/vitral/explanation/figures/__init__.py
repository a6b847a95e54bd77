"""Figures of explanations and of models: values in, pictures out."""
