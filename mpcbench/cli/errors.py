"""How a failure reaches the user: one sentence on standard error and an exit code."""

from __future__ import annotations

import errno
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from mpcbench.errors import PeerError, UserError

INTERRUPTED = (
    "interrupted; every finished measurement is kept as a record, "
    "and the same command continues where it stopped when called again."
)
_FULL = "free some, or choose a folder of another disk (MPCBENCH_CACHE is the cache's, TMPDIR that of a run)."
_ADVICE = {
    errno.ENOSPC: f"no space left on the disk{{at}}: {_FULL}",
    errno.EDQUOT: f"the disk quota is used up{{at}}: {_FULL}",
    errno.EACCES: "permission denied{at}: choose another path, or change its permissions.",
    errno.EPERM: "permission denied{at}: choose another path, or change its permissions.",
    errno.EROFS: "the file system is read-only{at}: choose a folder that can be written.",
}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers report an errno


def sentence(error: BaseException) -> str | None:
    """What the user can do about a full disk or a missing permission; None for any other failure.

    Libraries like to wrap such an error in their own, so the chain of causes is searched.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        code, names = _errno_and_names(link)
        if code in _ADVICE:
            return _ADVICE[code].format(at=f" ({', '.join(names)})" if names else "")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def _errno_and_names(error: BaseException) -> tuple[int, list[str]]:
    """The errno (0 if there is none) and the paths that an exception speaks of."""
    if isinstance(error, OSError):
        names = [n for n in (error.filename, error.filename2) if isinstance(n, str | os.PathLike)]
        return error.errno or 0, [os.fspath(name) for name in names]
    match = _RUST_ERROR.search(str(error))
    return (int(match.group(1)) if match else 0), []


def complain(text: str) -> None:
    """Print ``mpcbench: text`` on standard error."""
    click.echo(f"mpcbench: {text}", err=True)


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more (`mpcbench ... | head`)."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # standard output is closed, or not a file
        return False


def _end_after_broken_pipe() -> NoReturn:
    """End in silence when our own reader has gone, with a sentence when it was another connection.

    Left alone, click would end with code 1 and no word in both cases.
    """
    if _reader_is_gone():
        # Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    complain("a connection was closed from the other end: look whether the other party is still running.")
    sys.exit(PeerError.exit_code)


@contextmanager
def reported() -> Iterator[None]:
    """Turn what a user can mend into one sentence and ``SystemExit``; let defects keep their traceback."""
    try:
        yield
    except UserError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain(INTERRUPTED)
        sys.exit(130)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            _end_after_broken_pipe()
        text = sentence(error)
        if text is None:
            raise
        complain(text)
        sys.exit(1)
