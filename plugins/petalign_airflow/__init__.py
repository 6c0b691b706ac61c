"""Airflow's side of petalign: it starts stages, waits for them and reports them; never pixels."""
