"""TensorFlow's log handler must not close what pytest captures.

Airflow's configuration of logging closes every handler that there is. The one of absl, which comes
with TensorFlow, then closes its stream, unless it is this process's own: while tests are collected,
it is the file into which pytest captures, and the whole run of tests dies.
"""

import sys
from importlib.util import find_spec

if find_spec("absl") is not None:
    from absl import logging

    logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
