"""The errors that are not faults of ours; here because they need nothing to be imported."""

from __future__ import annotations

import errno

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What a disk says that is full, limited, read-only or broken."""

UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
"""What a path says that may not be followed, or leads nowhere."""


class IrstdError(Exception):
    """Something the user can fix. The message reads `FILE-OR-FLAG: what is wrong, and the fix`."""


class MachineError(IrstdError):
    """Something this machine cannot do: what is missing, and how to get it."""


class UnusableError(IrstdError):
    """A frame whose label does not fit it: skipped by name unless the user is strict."""
