"""Train networks that segment, on labelled volumes, by one process or many."""
