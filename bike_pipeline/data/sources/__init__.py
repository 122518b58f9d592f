"""Sources of rows, one file a source; `registry.read_source` picks the one that an address names."""
