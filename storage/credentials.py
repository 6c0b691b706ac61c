"""Who this process is in S3, from the usual chain, and which server it talks to.

In this order: the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), the
shared profile (AWS_PROFILE in ~/.aws/credentials and ~/.aws/config: keys, an assumed role, single
sign-on, a command), the role of the container or instance. All but the environment are botocore's
work, which is imported for them alone because that takes most of a second. Keys that expire are
asked for again in time.

The server is AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or what the profile names.

Keys are held by the client's own memory. Nothing here is logged, pickled or shown in an error.
"""

from __future__ import annotations

import configparser
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from storage.errors import AccessError

if TYPE_CHECKING:
    from obstore.store import S3Credential

LIFETIME = timedelta(minutes=5)
"""How long keys that can expire are used before botocore is asked again; it renews them early."""


class Server(NamedTuple):
    """Where S3 is."""

    endpoint: str | None
    region: str | None


def server(environment: Mapping[str, str]) -> Server:
    """Return endpoint and region from the environment, else from the profile.

    >>> server({"AWS_ENDPOINT_URL": "http://127.0.0.1:8333", "AWS_REGION": "eu-central-1"})
    Server(endpoint='http://127.0.0.1:8333', region='eu-central-1')
    """
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if endpoint and region:
        return Server(endpoint, region)
    profile = _profile(environment)
    return Server(endpoint or profile.endpoint, region or profile.region)


def provider(environment: Mapping[str, str]) -> Callable[[], S3Credential] | None:
    """Return a function that gives valid keys; None where the environment alone holds them.

    Raises
    ------
    AccessError
        If there are none anywhere.
    """
    if environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1", "yes", "on"):
        return None
    if environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"):
        return None
    return _Chain()


class _Chain:
    """Keys from botocore's chain; finds them on first use."""

    def __init__(self) -> None:
        import botocore.session

        self._lock = threading.Lock()
        try:
            self._found: Any = botocore.session.Session().get_credentials()
        except Exception as error:  # a broken profile, a role that may not be assumed
            raise AccessError(f"no S3 credentials: {_first_line(error)}") from None
        if self._found is None:
            raise AccessError(
                "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE, or run where the instance has a role"
            )

    def __call__(self) -> S3Credential:
        with self._lock:
            keys = self._found.get_frozen_credentials()
        renewable = hasattr(self._found, "refresh_needed")
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + LIFETIME if renewable else None,
        }


def _profile(environment: Mapping[str, str]) -> Server:
    """Return what ~/.aws/config says of the server; nothing if there is no such file."""
    path = Path(environment.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    name = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read(path)
    except (configparser.Error, OSError, UnicodeDecodeError):
        raise AccessError(
            f"{path} is not a configuration file of AWS; see its first lines"
        ) from None
    section = name if name == "default" else f"profile {name}"
    if not parser.has_section(section):
        return Server(None, None)
    own = parser[section]
    endpoint = own.get("endpoint_url")
    services = f"services {own.get('services', '')}"
    if parser.has_section(services):
        # "s3 =" is followed by indented lines of its own settings.
        lines = parser[services].get("s3", "").splitlines()
        for setting, _, value in (line.partition("=") for line in lines):
            if setting.strip() == "endpoint_url":
                endpoint = value.strip()
    return Server(endpoint, own.get("region"))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
