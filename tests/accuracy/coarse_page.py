"""Where the tables of the coarse stage stand: docs/coarse.md."""

from functools import partial

from tests import pages

write_table = partial(pages.write_table, "coarse.md")
