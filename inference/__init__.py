"""Networks on CPUs: models, backends, tiling. Sees arrays only, never storage or Airflow."""
