"""The exceptions of the package. Each says what went wrong, what was expected, found, and to do.

The command line maps them to exit codes; anything else that escapes is a bug.
"""

from __future__ import annotations


class UltraRefinerError(Exception):
    """Base of all errors that a user can meet.

    Args:
        what: the thing that is wrong, naming the file or setting.
        expected: what would have been right.
        found: what was there instead.
        fix: what to do about it, as a full sentence.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.what = what
        self.expected = expected
        self.found = found
        self.fix = fix
        clauses = [
            f"expected {expected}" if expected else "",
            f"found {found}" if found else "",
        ]
        details = ", ".join(clause for clause in clauses if clause)
        message = f"{what}: {details}" if details else what
        super().__init__(f"{message}. {fix}" if fix else message)


class InputError(UltraRefinerError, ValueError):
    """A folder, file or argument given by the user cannot be used."""


class ConfigError(UltraRefinerError, ValueError):
    """A setting is out of range or contradicts another."""


class WeightsError(UltraRefinerError, RuntimeError):
    """Pretrained weights are missing, corrupt or not the ones expected."""


class LeakError(UltraRefinerError, ValueError):
    """Images of one scene or patient would be learned from and scored on (exit code 3)."""


class OutputError(UltraRefinerError, OSError):
    """A result could not be written (disk full, no permission)."""
