"""How many requests a model server answers, and how fast: load from compiled generators, or from Python."""
