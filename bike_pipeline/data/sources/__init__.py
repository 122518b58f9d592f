"""Sources of rows; `registry.read_source` reads the one that an address names."""
