"""C source: a model as plain C99 with no runtime."""
