"""What a run would need, and which of its units, before anything runs; and what it took."""
