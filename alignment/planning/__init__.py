"""What a run will take, before it runs: counts, bytes, memory, time, money; and what it took."""
