"""Watching the model: what was asked and answered, the labels that came later, and what both say of it."""
