"""Whether a Dask cluster may be spoken to, and how: TLS, and versions that fit."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Security


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("10.0.0.7")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def mismatch_of(versions: Mapping[str, Any]) -> str:
    """Return in words how a cluster's versions differ from ours, which would break its messages."""
    own = versions["client"]["packages"]
    there = {"the scheduler": versions["scheduler"], **versions["workers"]}
    for name in ("distributed", "python"):
        for place, found in there.items():
            theirs = found["packages"][name]
            if theirs.split(".")[:2] != own[name].split(".")[:2]:
                return f"{place} has {name} {theirs} and Airflow {own[name]}; install the same"
    return ""


def security_of(extra: Mapping[str, Any]) -> Security | None:
    """Return the TLS files of a connection's extra; none leaves it to Dask's own configuration."""
    if not extra.get("tls_ca"):
        return None
    from distributed import Security

    return Security(
        require_encryption=True,
        tls_ca_file=extra["tls_ca"],
        tls_client_cert=extra.get("tls_cert"),
        tls_client_key=extra.get("tls_key"),
    )
