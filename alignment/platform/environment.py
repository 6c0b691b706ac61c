"""How clients and services reach the S3 server: the standard AWS variables, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import suppress

from alignment.platform.config import S3_REGION, PlatformConfig
from alignment.platform.credentials import Credentials, read_credentials
from alignment.platform.errors import PlatformError
from alignment.platform.processes import is_alive
from alignment.platform.state import Home, read_state

_OWN_S3 = ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE")


def environment(config: PlatformConfig) -> dict[str, str]:
    """Return the variables with which any S3 client reads and writes the platform's bucket.

    Raises
    ------
    PlatformError
        If the platform was never up.
    """
    return s3_environment(config, read_credentials(Home(config.home)))


def s3_environment(config: PlatformConfig, credentials: Credentials) -> dict[str, str]:
    """Return the variables of `environment`, for known credentials."""
    return {
        "AWS_ACCESS_KEY_ID": credentials.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.s3_secret_key,
        "AWS_ENDPOINT_URL": config.s3_endpoint,
        "AWS_REGION": S3_REGION,
        "AWS_DEFAULT_REGION": S3_REGION,
        "AWS_ALLOW_HTTP": "true",
        # Otherwise clients look for a cloud's metadata server when a key is refused.
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep requests to this machine away from a proxy.

    >>> without_proxy({"NO_PROXY": "example.org"})["NO_PROXY"]
    'example.org,127.0.0.1,localhost'
    """
    known = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    hosts = [host for host in known.split(",") if host]
    hosts += [host for host in ("127.0.0.1", "localhost") if host not in hosts]
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(hosts))


def lend_connection(environ: MutableMapping[str, str], config: PlatformConfig) -> bool:
    """Add the S3 connection of the platform to `environ`, if it is up and no other is set.

    Returns
    -------
    bool
        Whether it was added.
    """
    if any(environ.get(name) for name in _OWN_S3):
        return False
    home = Home(config.home)
    with suppress(PlatformError):
        state = read_state(home)
        server = state.service("s3") if state else None
        if state and server and is_alive(server.process):
            environ.update(s3_environment(state.config, read_credentials(home)))
            environ.update(without_proxy(environ))
            return True
    return False
