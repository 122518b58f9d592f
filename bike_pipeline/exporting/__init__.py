"""One model, every format: one file a format, all with the same three verbs, each held against the SavedModel."""
