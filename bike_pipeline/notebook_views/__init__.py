"""What the notebooks show: they hold words and calls, and every number and picture of theirs is made here."""
