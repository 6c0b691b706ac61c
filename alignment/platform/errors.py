"""What can go wrong with the embedded platform.

AlignmentError
`- PlatformError    a service cannot be started or does not answer
   |- PortTakenError   another process listens where a service should
   `- RequestRefused   Airflow understood a request and refused it: do not retry
"""

from alignment.errors import AlignmentError, ConfigError


class PlatformError(AlignmentError, RuntimeError):
    """A service of the embedded platform cannot be started or does not answer."""


class PortTakenError(PlatformError):
    """Another process listens on a port that a service needs."""


class RequestRefused(PlatformError, ConfigError):
    """Airflow refused a request, for instance a parameter of a DAG; never retried."""
