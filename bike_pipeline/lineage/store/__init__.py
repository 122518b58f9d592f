"""The connection to ML Metadata, and what is read from it and written to it."""
