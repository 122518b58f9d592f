"""One module a format: how a SavedModel becomes it, and how it is loaded."""
