"""Where files are and how they are changed: whole or not at all, on a local folder or on object storage."""
