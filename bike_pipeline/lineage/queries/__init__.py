"""Questions that the metadata store answers."""
