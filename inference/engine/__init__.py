"""The fused engine for CPUs: a network compiled once for one size of input, and run often."""
