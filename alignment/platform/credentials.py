"""Secrets of one platform: made once, kept in one file that only its owner may read."""

from __future__ import annotations

import base64
import secrets

from pydantic import Field, ValidationError

from alignment.config import Config
from alignment.platform.errors import PlatformError
from alignment.platform.state import Home, write_private


def _token() -> str:
    return secrets.token_urlsafe(32)


class Credentials(Config):
    """What the services and their clients prove themselves with."""

    s3_access_key: str = Field(default_factory=lambda: f"petalign{secrets.token_hex(6)}")
    s3_secret_key: str = Field(default_factory=lambda: secrets.token_hex(20))
    airflow_user: str = "admin"
    airflow_password: str = Field(default_factory=lambda: secrets.token_urlsafe(12))
    airflow_jwt_secret: str = Field(default_factory=lambda: secrets.token_urlsafe(64))
    airflow_api_secret: str = Field(default_factory=_token)
    airflow_fernet_key: str = Field(
        default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    )


def read_credentials(home: Home) -> Credentials:
    """Return the secrets of a platform.

    Raises
    ------
    PlatformError
        If the platform was never up, or the file was damaged.
    """
    try:
        return Credentials.model_validate_json(home.credentials.read_text())
    except FileNotFoundError:
        raise PlatformError(
            f"there is no platform in {home.folder} yet; start it with `petalign up`"
        ) from None
    except (OSError, ValidationError):
        raise PlatformError(
            f"cannot read {home.credentials}; with the platform down, delete it and run "
            "`petalign up`, which makes new secrets"
        ) from None


def ensure_credentials(home: Home) -> Credentials:
    """Return the secrets of a platform; make them if there are none."""
    if not home.credentials.exists():
        write_private(home.credentials, Credentials().model_dump_json(indent=1))
    return read_credentials(home)
