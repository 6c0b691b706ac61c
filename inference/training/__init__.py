"""Train segmentation networks by one process or many; computes no voxels of a run."""
