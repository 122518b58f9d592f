"""Continuous training: what triggers a run, the ledger of all events and decisions, and the loop that acts on it."""
