"""Everything at once: real runs on the real platform, while parts of it are killed and broken.

``python -m tests.chaos.soak`` (`make chaos`) follows a schedule that a seed reproduces;
``python -m tests.chaos.matrix`` makes one fault after the other. Both write their tables into
``docs/reliability.md``.
"""
