"""The one exception that a user is meant to read.

Anything that the user can put right (a wrong name, a busy port, a full disk) is raised as a
:class:`UserError` whose text is one sentence that says what to do. The command line prints it
without a traceback and exits with :attr:`UserError.exit_code`; every other exception is a defect
of mpcbench and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """A failure that the user can mend; its text is one sentence that says how."""

    exit_code = 1


class PeerError(UserError):
    """The other party is missing, has died, or does not speak the same protocol."""

    exit_code = 3
