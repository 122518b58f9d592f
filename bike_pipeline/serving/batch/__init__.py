"""Answers to whole files: the embedded server's model over rows in columns, each input's rows in files of their own."""
