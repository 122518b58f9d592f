"""What is recorded with a run: its trigger, its code, the seals of its outputs."""
