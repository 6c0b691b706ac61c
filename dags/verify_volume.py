"""Look for damage that nobody has met yet, once a week or by hand.

`volume` is in the Airflow Variable `petalign_nightly`, or in the parameters.
"""

from petalign_airflow.facility import verify_dag

dag = verify_dag("verify_volume")
