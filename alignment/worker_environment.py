"""The environment variables of worker processes, wherever they are started."""

WORKER_ENVIRONMENT = {
    # One thread a worker: the cores are shared by workers, not by threads of libraries.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # Keep freed memory: Dask's own setting returns it after every batch of transforms, and a third
    # of the matching's time went into page faults.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
"""What worker processes are started with."""
