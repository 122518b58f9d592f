"""Pushed versions of the model: their files, manifest and signature, and the log of which one serves."""
