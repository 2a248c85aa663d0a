"""The chart, the units and the product say the same of ports, probes, settings and times. Run: make test-containers"""

from __future__ import annotations

import configparser
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.charts import PRESETS, ROOT, of_kind, render
from triune_gateway.endpoints import health as gateway_health
from triune_server import health
from triune_server.options import ServerOptions

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
DEFAULTS = {f.name: f.default for f in dataclasses.fields(ServerOptions)}
# What triune takes after it is told to stop, beside the drain, is promised there.
(AFTER_S,) = {int(s) for s in re.findall(r"`drain_s` \+ (\d+) s", (ROOT / "docs" / "operations.md").read_text("utf-8"))}


@pytest.fixture(
    scope="module", params=[(), *(("-f", str(preset)) for preset in PRESETS)], ids=["defaults", *(p.stem for p in PRESETS)]
)
def pods(request: pytest.FixtureRequest, programs: Path) -> dict[str, dict[str, Any]]:
    """The pods' specs by component."""
    manifests = render(programs, *request.param)
    return {
        "server": of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"],
        "gateway": of_kind(manifests, "Deployment")["spec"]["template"]["spec"],
    }


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}


def test_a_pod_is_killed_only_after_it_had_time_to_end(pods: dict[str, dict[str, Any]]) -> None:
    for pod in pods.values():
        wait = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        assert pod["terminationGracePeriodSeconds"] == wait + int(variables(pod)["TRIUNE_DRAIN_S"]) + AFTER_S


def test_grpc_connections_have_moved_before_a_server_is_told_to_stop(pods: dict[str, dict[str, Any]]) -> None:
    server = pods["server"]
    wait = int(server["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert wait > 1.1 * int(variables(server)["TRIUNE_GRPC_CONNECTION_S"]) + 5, (
        "with gRPC's jitter of a tenth, and the network's time"
    )


def test_probes_ask_what_triune_answers(pods: dict[str, dict[str, Any]]) -> None:
    (server,), (gateway,) = pods["server"]["containers"], pods["gateway"]["containers"]
    for probe, depth, endpoint in (
        ("startupProbe", health.DEEP, gateway_health.DEEP),
        ("readinessProbe", health.READY, gateway_health.READY_TOO),
        ("livenessProbe", health.LIVE, gateway_health.LIVE),
    ):
        command = server[probe]["exec"]["command"]
        assert command[:2] == ["triune", "health"] and health._parser().parse_args(command[2:]).depth == depth
        assert gateway[probe]["httpGet"] == {"path": endpoint.path, "port": DEFAULTS["openai_port"], "scheme": "HTTP"}
        # A probe that is cut off looks as one that fails; `triune health` takes 5 s for each of its questions.
        assert server[probe]["timeoutSeconds"] >= 10


def test_ports_are_those_that_are_listened_on(pods: dict[str, dict[str, Any]]) -> None:
    named = {p["name"]: p["containerPort"] for pod in pods.values() for p in pod["containers"][0]["ports"]}
    assert named == {name: DEFAULTS[f"{name}_port"] for name in ("http", "grpc", "metrics", "openai")}
    assert variables(pods["server"])["TRIUNE_OPENAI_PORT"] == "0"


def test_every_variable_is_a_setting(pods: dict[str, dict[str, Any]]) -> None:
    listed = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for pod in pods.values():
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            for name in (one["name"] for one in container["env"] if one["name"].startswith("TRIUNE_")):
                assert f"`{name.removeprefix('TRIUNE_').lower()}`" in listed, name


def test_readiness_is_lost_before_connections_have_moved(pods: dict[str, dict[str, Any]]) -> None:
    """A pod that ends is taken out at once; one that cannot generate, by its probe, before clients give up."""
    for pod in pods.values():
        probe = pod["containers"][0]["readinessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] <= 10


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_killed_only_after_they_had_time_to_end(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    service = parser["Service"]
    assert int(service["TimeoutStopSec"]) == DEFAULTS["drain_s"] + AFTER_S and service["KillSignal"] == "SIGTERM"
    for name in re.findall(r"\b(TRIUNE_[A-Z_]+)=", service["Environment"]):
        known = f"`{name.removeprefix('TRIUNE_').lower()}`" in (ROOT / "docs" / "configuration.md").read_text("utf-8")
        assert known or name in ("TRIUNE_CONFIG", "TRIUNE_GATEWAY_SERVER"), name


def test_compose_waits_as_long_as_the_chart() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))["services"]
    for service in services.values():
        grace = int(re.findall(r":-(\d+)s", service.get("stop_grace_period", ":-0s"))[0])
        drain = int(re.findall(r":-(\d+)\}", service["environment"]["TRIUNE_DRAIN_S"])[0])
        assert grace >= drain + AFTER_S
