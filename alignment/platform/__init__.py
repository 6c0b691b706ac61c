"""The embedded platform: S3 server, Dask and Airflow as processes of this machine, on loopback.

`lifecycle` brings it up and down, `doctor` examines it, `airflow_client` talks to Airflow and
`environment` says how to reach the S3 server. Below them, `supervisor` is the process that keeps
`services` alive, one `watch` each. Airflow is started, never imported.

It is meant for one person on one machine. The S3 server and Airflow ask for credentials, which lie
in the home folder; but whoever can log in to the machine can reach Dask, which asks for none and
runs what it is given.
"""
