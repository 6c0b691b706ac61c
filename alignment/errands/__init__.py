"""Errands: what the scheduled DAGs ask the cluster for besides the stages of a run.

`nightly` says what changed and prepares an update; `sections` brings images into a source volume;
`scrub` looks for damage. Long ones are driven by `drive`, which keeps their state where the stages
of a run keep theirs: in a ledger that outlives Airflow and Dask.
"""
