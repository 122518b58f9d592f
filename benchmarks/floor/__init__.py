"""The floor: the same work with polars and Keras, and no pipeline at all."""
