"""What runs a network: one module a library, each imported only by those who have it."""
