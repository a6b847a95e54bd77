"""Errors that are raised on purpose, as one small tree; each leaf knows its exit code.

    VitralError
    ├── UsageError        2   a setting or option that cannot be used
    │   └── SpecError     2   values of a ModelSpec or ImageSpec that do not fit together
    ├── DataError         3   images, labels and folders
    │   └── TruncatedError 3  a file that ends before its image does
    ├── ModelError        4   models and weights
    │   └── WeightsError  4   tensors or an artifact that do not fit the model
    ├── MachineError      5   disk, memory, devices, missing libraries
    └── Interrupted     130   stopped by the user, with the state saved

Every message says what, where, and what to do, in one sentence or two.
"""


class VitralError(Exception):
    """Base of every error that Vitral raises on purpose."""

    exit_code = 1


class UsageError(VitralError):
    """A setting, option or argument that cannot be used."""

    exit_code = 2


class SpecError(UsageError, ValueError):
    """Values of a specification that do not fit together."""


class DataError(VitralError):
    """Images, labels or folders that cannot be used."""

    exit_code = 3


class TruncatedError(DataError):
    """A file that ends before its image does: a copy or a download that was cut off."""


class ModelError(VitralError):
    """A model that does not exist or cannot do what was asked."""

    exit_code = 4


class WeightsError(ModelError):
    """Tensors or an artifact folder that do not fit the model."""


class MachineError(VitralError):
    """The disk, memory, device or an optional library is not there or not enough."""

    exit_code = 5


class Interrupted(VitralError):
    """Stopped by the user; the state is saved and the message says how to go on."""

    exit_code = 130
