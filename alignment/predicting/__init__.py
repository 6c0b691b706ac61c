"""Runs of another kind: a network over a published volume.

`runs` freezes one, `layout` cuts it into patches and shards, `figures` says beforehand what it
takes, `driver` drives it. Its units are those of `alignment.stages.predict`; records, ledger, seals
and publishing are those of every run.
"""
