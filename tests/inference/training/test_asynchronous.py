"""Changes by workers that wait for nobody are counted one by one."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

TAKE = """
from concurrent.futures import ThreadPoolExecutor
from inference.keras_on_tensorflow import tf
from inference.training.asynchronous import taken

counter = tf.Variable(0, dtype=tf.int64)
take = tf.function(lambda: taken(counter))
take()  # traced

def many(_worker):
    return [take() for _ in range(4000)]

with ThreadPoolExecutor(6) as pool:
    found = [int(each) for some in pool.map(many, range(6)) for each in some]
print(len(found), len(set(found)), max(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_no_two_changes_get_the_same_number():
    """To add and then to read gives 1 in 200 to two callers.

    In a process of its own: where another test has asked TensorFlow for determinism, nothing races.
    """
    done = subprocess.run([sys.executable, "-c", TAKE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["24000", "24000", "24000"]
