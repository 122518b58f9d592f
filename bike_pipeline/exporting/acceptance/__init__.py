"""What decides whether an export is the same model: parity, quality, measurements."""
