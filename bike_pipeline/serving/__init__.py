"""The served model: where it stands, how it gets there, how it answers."""
