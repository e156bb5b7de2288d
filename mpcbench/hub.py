"""Is the model Hub reachable? Asked once, answered within seconds, and then believed by every library.

``huggingface_hub`` and ``datasets`` each retry an unreachable Hub on their own, with waits that add
up to minutes. One probe here decides for the whole process and for the processes it starts.
"""

from __future__ import annotations

import functools
import os
import sys
import threading

from mpcbench.errors import UserError

PROBE_SECONDS = 2.5
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def endpoint() -> str:
    """The Hub's address as ``huggingface_hub`` sees it (``HF_ENDPOINT``, or its own default)."""
    from huggingface_hub import constants

    return constants.ENDPOINT


@functools.cache
def reachable() -> bool:
    """Whether the Hub answers, from one probe that ends within three seconds, remembered by the process.

    When it does not, offline mode is switched on in the environment (so that child processes do not
    probe again) and in the libraries that have read the environment already.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode() or not _answers(endpoint()):
        _go_offline()
        return False
    return True


def require(what: str) -> None:
    """Raises UserError if the Hub is needed for ``what`` ("the model org/name") and not reachable."""
    if not reachable():
        raise UserError(
            f"{what} has to come from the Hub, which cannot be reached at {endpoint()} (or HF_HUB_OFFLINE is "
            "set): check the network, set HF_ENDPOINT to a mirror, or name a local file or folder instead."
        )


def _answers(address: str) -> bool:
    """Whether a HEAD request gets an answer in time.

    It goes through huggingface_hub's own client, so that proxies and certificates count as they will
    for the download. The thread bounds the sum of all waits, name resolution included, which has no
    timeout of its own.
    """
    status: list[int] = []
    probe = threading.Thread(target=_probe, args=(address, status), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    # 403 and 407 are a gateway's refusals; 404 is how some mirrors answer for their root.
    return bool(status) and status[0] < 500 and status[0] not in (403, 407)


def _probe(address: str, status: list[int]) -> None:
    from huggingface_hub.utils import get_session

    try:
        status.append(get_session().head(address, timeout=PROBE_SECONDS).status_code)
    except Exception:  # whatever went wrong on the way, the Hub did not answer
        return


def _go_offline() -> None:
    """Offline for children by the environment, and for this process in what was read from it at import."""
    for name in OFFLINE_VARIABLES:
        os.environ[name] = "1"
    for module, names in {
        "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
        "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    }.items():
        if module in sys.modules:
            for name in names:
                setattr(sys.modules[module], name, True)
