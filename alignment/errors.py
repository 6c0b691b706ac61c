"""The errors of petalign, split by what the caller does next.

AlignmentError
|- ConfigError        a setting is wrong: do not retry; the message names the field
|- DataError          the input is wrong: do not retry; the message names the section
|  `- ShapeError      an array has the wrong shape
|- ConvergenceError   a solver stopped before its tolerance
`- StageFailed        units of a stage failed: what is finished is kept

Storage has its own tree in `storage.errors`.
"""


class AlignmentError(Exception):
    """Base of every error raised by `alignment`."""


class ConfigError(AlignmentError, ValueError):
    """A setting is unknown, out of range, or contradicts another; never retried."""


class DataError(AlignmentError, ValueError):
    """The input cannot be used as it is; never retried."""


class ShapeError(DataError):
    """An array has the wrong shape."""


class ConvergenceError(AlignmentError, ArithmeticError):
    """A solver stopped before it reached its tolerance."""


class StageFailed(AlignmentError):
    """Some units of a stage failed; what is finished is kept and a later run goes on from there."""
