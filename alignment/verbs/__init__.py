"""The verbs of the command line, one file a theme: thin over `alignment.commands`.

Each is a function of its options; `alignment.cli` makes commands of them. What a verb needs is
imported inside it, so that `petalign --help` takes no seconds.
"""
