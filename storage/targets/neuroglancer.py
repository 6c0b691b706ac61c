"""A Neuroglancer link: a URL that holds all of what it shows, and nothing that is secret."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlsplit

from storage.errors import UriError

VIEWER_URL = "https://neuroglancer-demo.appspot.com"
_SCHEMES = ("http", "https", "s3", "gs")


def neuroglancer_link(state: dict[str, Any], viewer_url: str = VIEWER_URL) -> str:
    """Return the URL of a viewer that opens in a state.

    >>> neuroglancer_link({"position": [1, 2]}, "https://viewer.example/")
    'https://viewer.example/#!%7B%22position%22:[1,2]%7D'

    Raises
    ------
    UriError
        If the viewer's URL holds more than a place.
    """
    text = json.dumps(state, separators=(",", ":"))
    return f"{check_public_url(viewer_url)}/#!{quote(text, safe=':/,[]@!*')}"


def check_public_url(url: str) -> str:
    """Return `url` without a slash at its end, if it can be passed on to anybody.

    Raises
    ------
    UriError
        If it names a user, or has a query or a fragment: credentials and signatures are there. The
        message does not repeat them.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise UriError(
            f"a public URL begins with {', '.join(f'{s}://' for s in _SCHEMES)} and a host; got "
            f"the scheme {parts.scheme!r}"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UriError(
            f"the URL at {parts.hostname} holds a user, a query or a fragment, which may be "
            "credentials; a link is for everybody, so give the plain public URL"
        )
    return url.rstrip("/")
