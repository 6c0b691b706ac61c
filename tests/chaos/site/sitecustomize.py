"""Imported by every Python process of a platform under test, before anything else.

Sends its S3 requests through the fault proxy, lets Dask give up a silent worker within seconds
instead of minutes, counts what workers begin, and may shift the process's clock.
"""

import os
import time

if os.environ.get("CHAOS_UPSTREAM"):
    if os.environ.get("AWS_ENDPOINT_URL") == os.environ["CHAOS_UPSTREAM"]:
        os.environ["AWS_ENDPOINT_URL"] = os.environ["CHAOS_ENDPOINT"]
    os.environ["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = os.environ["CHAOS_WORKER_TTL"]
    os.environ["DASK_DISTRIBUTED__WORKER__PRELOAD"] = '["tests.chaos.counting"]'

if os.environ.get("CHAOS_CLOCK_S"):
    # Each process has another clock, up to so many seconds ahead or behind.
    _furthest = float(os.environ["CHAOS_CLOCK_S"])
    _offset = _furthest * ((os.getpid() % 5) - 2) / 2
    _true = time.time
    time.time = lambda: _true() + _offset
