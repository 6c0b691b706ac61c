"""What drives the stages and computes no voxels: progress, slabs, and who finishes a stage."""
