"""Faults on purpose: a proxy, a failing disk, damaged objects, races; and who notices.

`sweep` makes one thing go wrong at each storage operation of a run, `flips` damages stored shards,
`table` prints what came of it beside a plain stack: ``python -m tests.faults.table``.
"""
