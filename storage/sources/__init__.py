"""The kinds of source volumes, one per file; `storage.sections.open_source` chooses."""
