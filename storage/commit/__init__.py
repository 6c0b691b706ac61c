"""The commit protocol: what makes it provable that a run is whole.

A *unit* of work writes objects and then one *record* that names them with their digests. When all
units of a stage are recorded, a *manifest* sums them up under a Merkle root; the roots of the
stages give the root of the run, which the publish pointer states. So one short digest vouches for
every byte that readers can reach, and `verify` can check each link. Nothing here locks: objects
are created once, equal results are equal bytes, and only the pointer is swapped.
"""
