"""Everything that reads ML Metadata, behind one small interface."""
