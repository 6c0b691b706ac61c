"""The kinds of exports, one per file; what all of them share is in `origin` and `blocks`."""
