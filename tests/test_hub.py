from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from huggingface_hub import constants

from mpcbench import hub
from mpcbench.errors import UserError


@pytest.fixture
def at(monkeypatch):
    """Makes an address the Hub's for one test; afterwards nothing of it is left, offline mode included."""
    import datasets

    for name in hub.OFFLINE_VARIABLES:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False)
    hub.reachable.cache_clear()
    yield lambda port: monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    hub.reachable.cache_clear()


@pytest.fixture
def silent_port():
    """A port that takes connections and never says a word, as a firewall in the middle may."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return port


def serve(status: int):
    """An HTTP server on a free port that answers every HEAD with ``status`` and counts the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            server.requests += 1
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def offline_everywhere() -> bool:
    import datasets

    return (
        constants.is_offline_mode()
        and datasets.config.HF_HUB_OFFLINE
        and datasets.config.HF_DATASETS_OFFLINE
        and all(os.environ[name] == "1" for name in hub.OFFLINE_VARIABLES)
    )


def test_closed_port_is_noticed_at_once(at, closed_port):
    at(closed_port)
    start = time.monotonic()
    assert not hub.reachable()
    assert time.monotonic() - start < 2
    assert offline_everywhere()


def test_silent_server_is_given_up_within_three_seconds(at, silent_port):
    at(silent_port)
    start = time.monotonic()
    assert not hub.reachable()
    assert time.monotonic() - start < 3
    assert offline_everywhere()


@pytest.mark.parametrize(("status", "expected"), [(200, True), (404, True), (403, False), (503, False)])
def test_an_answer_counts_unless_it_is_a_refusal(at, status, expected):
    server = serve(status)
    try:
        at(server.server_port)
        assert hub.reachable() is expected
        assert hub.reachable() is expected
        assert server.requests == 1, "the probe is made once a process"
    finally:
        server.shutdown()
        server.server_close()
    assert offline_everywhere() is not expected


def test_offline_mode_is_believed_without_a_probe(at, monkeypatch):
    server = serve(200)
    try:
        at(server.server_port)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert not hub.reachable()
        assert server.requests == 0
    finally:
        server.shutdown()
        server.server_close()


def test_require_names_what_was_wanted_and_where(at, closed_port):
    at(closed_port)
    with pytest.raises(UserError, match=f"^The model some/one has to come .*127.0.0.1:{closed_port}"):
        hub.require("The model some/one")


def test_libraries_imported_earlier_do_not_retry(closed_port):
    script = (
        "import mpcbench.compat\n"
        "import time, datasets\n"
        "from transformers import AutoConfig\n"
        "from mpcbench import hub\n"
        "assert not hub.reachable()\n"
        "start = time.monotonic()\n"
        "for attempt in (lambda: datasets.load_dataset('no/such'),\n"
        "                lambda: AutoConfig.from_pretrained('no/such')):\n"
        "    try:\n"
        "        attempt()\n"
        "    except (OSError, ConnectionError):\n"
        "        continue\n"
        "    raise SystemExit('the Hub was not needed')\n"
        "assert time.monotonic() - start < 3, time.monotonic() - start\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in hub.OFFLINE_VARIABLES}
    environment["HF_ENDPOINT"] = f"http://127.0.0.1:{closed_port}"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
