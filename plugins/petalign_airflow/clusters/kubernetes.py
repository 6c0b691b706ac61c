"""A Dask cluster of pods, which the operator of dask-kubernetes keeps alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.worker_environment import WORKER_ENVIRONMENT
from petalign_airflow.clusters.config import KubernetesConfig, settings


def start(name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Create the ``DaskCluster`` resource and wait for its workers; an earlier one goes on."""
    from dask_kubernetes.operator import KubeCluster

    config = settings(KubernetesConfig, extra)
    cluster = KubeCluster(
        custom_cluster_spec=cluster_spec(name, config),
        namespace=config.namespace,
        resource_timeout=int(config.start_timeout_s),
        shutdown_on_close=False,
        quiet=True,
    )
    cluster.wait_for_workers(config.workers, timeout=config.start_timeout_s)
    address = f"tcp://{name}-scheduler.{config.namespace}.svc:8786"
    return {"address": address, "name": name, "namespace": config.namespace}


def stop(handle: Mapping[str, Any]) -> None:
    """Delete the ``DaskCluster`` resource, and with it the pods."""
    from dask_kubernetes.operator import KubeCluster

    try:
        cluster = KubeCluster.from_name(
            handle["name"], namespace=handle["namespace"], shutdown_on_close=True, quiet=True
        )
    except ValueError:  # there is none of this name
        return
    cluster.close()


def cluster_spec(name: str, config: KubernetesConfig) -> dict[str, Any]:
    """Return the ``DaskCluster`` resource: workers of one thread, with what they may use."""
    from dask_kubernetes.operator import make_cluster_spec

    amount = {"memory": f"{config.memory_gib:g}Gi", "cpu": f"{config.cpus:g}"}
    spec: dict[str, Any] = make_cluster_spec(
        name=name,
        image=config.image,
        n_workers=config.workers,
        resources={"requests": amount, "limits": amount},
        env=dict(WORKER_ENVIRONMENT) | dict(config.env),
        worker_command=f"dask worker --nthreads 1 --memory-limit {config.memory_gib:g}GiB",
    )
    if config.service_account:
        for part in (spec["spec"]["worker"], spec["spec"]["scheduler"]):
            part["spec"]["serviceAccountName"] = config.service_account
    return spec
