"""Learning from volumes: what networks are trained and judged on. Computes no voxels of a run."""
