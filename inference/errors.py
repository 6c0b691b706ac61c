"""The errors of inference, split by what the caller does next.

InferenceError
|- ShapeError     an array has another shape than the computation needs
|- ModelError     a model's file is damaged, or is not the model that was asked for: do not retry
|  `- UnsupportedError  another backend may compute this model
|- ConfigError    a setting is not one of those that there are: do not retry
|- TrainingError  training cannot begin or go on as it was asked for
`- BackendError   the library that would compute is not installed, or is set up otherwise
"""


class InferenceError(Exception):
    """Base of every error raised by `inference`."""


class ShapeError(InferenceError, ValueError):
    """An array has the wrong shape."""


class ModelError(InferenceError, ValueError):
    """A model's file cannot be used; never retried."""


class UnsupportedError(ModelError):
    """The engine does not compute this model; another backend may."""


class ConfigError(InferenceError, ValueError):
    """A setting has a value that means nothing."""


class BackendError(InferenceError, ImportError):
    """What a network runs on is missing."""


class TrainingError(InferenceError, ValueError):
    """Training cannot begin or go on as it was asked for."""
