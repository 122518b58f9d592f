"""Smaller and faster models of the same demand: made by several methods, measured on labels, chosen by a rule."""
