"""An engine over several machines: pods that meet, all alike, behind the services of one. Run: make test-containers"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.charts import DIGESTS, ONE_MACHINE, SETS, digest, of_kind, render
from triune_runtime.targets.vllm import meeting, preflight

GROUPS = [name for name in SETS if name not in ONE_MACHINE]
Manifests = list[dict[str, Any]]


@pytest.fixture(scope="module", params=GROUPS)
def chart(request: pytest.FixtureRequest, programs: Path) -> Manifests:
    return render(programs, *SETS[request.param])


@pytest.fixture
def group(chart: Manifests) -> dict[str, Any]:
    template: dict[str, Any] = of_kind(chart, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    return template


def pods(group: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a leader and of the others."""
    return group["leaderTemplate"]["spec"], group["workerTemplate"]["spec"]


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    rules = selector.get("matchExpressions", ())
    same = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    return same and all(labels.get(rule["key"]) in rule["values"] for rule in rules)


@pytest.mark.parametrize("name", ONE_MACHINE)
def test_what_one_machine_gets_is_the_same_to_the_byte(programs: Path, name: str) -> None:
    known = json.loads(DIGESTS.read_text("utf-8"))
    assert set(known) == set(ONE_MACHINE)
    how = "is it meant? then `python tests/support/charts.py build/charts --digests`"
    assert digest(programs, *SETS[name]) == digest(programs, *SETS[name], "--set=server.nodes=1") == known[name], how


def test_every_machine_has_the_same_image_engine_gpus_and_shared_memory(chart: Manifests, group: dict[str, Any]) -> None:
    leader, worker = pods(group)
    (server,), (node,) = leader["containers"], worker["containers"]
    for name in ("image", "imagePullPolicy", "resources", "volumeMounts", "securityContext"):
        assert server[name] == node[name], name
    assert leader.get("initContainers") == worker.get("initContainers"), "the engine is built, or fetched, on each"
    assert leader["volumes"] == worker["volumes"] and leader["securityContext"] == worker["securityContext"]
    gpus = int(node["resources"]["limits"]["nvidia.com/gpu"])
    (shared,) = [volume["emptyDir"] for volume in worker["volumes"] if volume["name"] == "shm"]
    assert shared["medium"] == "Memory" and int(shared["sizeLimit"].removesuffix("Gi")) << 30 >= gpus * preflight._RING
    for container in worker.get("initContainers", ()):
        said = env(container) if "env" in container else {}
        if said:
            assert said["TRIUNE_TARGET"] == "vllm" and said["TRIUNE_NODES"] == str(group["size"])
            assert said["TRIUNE_GPUS"] == str(group["size"] * gpus), "of all machines"


def test_the_others_join_their_leader_by_its_name_with_their_rank(chart: Manifests, group: dict[str, Any]) -> None:
    leader, worker = pods(group)
    (server,), (node,) = leader["containers"], worker["containers"]
    assert node["args"][0] == "node" and node["args"][-2:] == ["--master=$(LWS_LEADER_ADDRESS)", "--rank=$(LWS_WORKER_INDEX)"]
    engine = server["args"][1]
    assert server["args"] == ["serve", engine] and node["args"][1] == engine, "that of the same model or repository"
    command = [str(Path(sys.executable).parent / "triune"), "node", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(f"{argument.partition('=')[0]} " in known for argument in node["args"][1:])
    assert env(server)[meeting.VARIABLE] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert {"name": "machines", "containerPort": meeting.PORT, "protocol": "TCP"} in server["ports"]
    shared = [one for one in server["env"] if not one["name"].startswith("TRIUNE_")]
    assert [one for one in node["env"] if not one["name"].startswith("TRIUNE_")] == shared


def test_a_pod_that_is_restarted_is_waited_for_by_the_others(chart: Manifests, group: dict[str, Any]) -> None:
    spec = of_kind(chart, "LeaderWorkerSet")["spec"]
    assert group["restartPolicy"] == "None", "a leader starts its engine again itself, when all machines are there"
    assert spec["startupPolicy"] == "LeaderCreated", "a leader is not ready without the others"
    (server,) = group["leaderTemplate"]["spec"]["containers"]
    start, live = server["startupProbe"], server["livenessProbe"]
    patience = [probe["periodSeconds"] * probe["failureThreshold"] for probe in (start, live)]
    assert patience[1] >= patience[0], "an engine that is loaded anew has as long as one that is loaded"


def test_the_others_do_their_part_while_the_leader_drains(chart: Manifests, group: dict[str, Any]) -> None:
    leader, worker = pods(group)
    (server,), (node,) = leader["containers"], worker["containers"]
    wait = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = int(env(node)["TRIUNE_DRAIN_S"])
    assert wait + int(env(server)["TRIUNE_DRAIN_S"]) < drain < worker["terminationGracePeriodSeconds"]


def test_services_select_leaders_alone_and_a_disruption_is_of_one_pod_of_any(chart: Manifests, group: dict[str, Any]) -> None:
    leader, worker = (group[f"{name}Template"]["metadata"]["labels"] for name in ("leader", "worker"))
    services = [m for m in chart if m["kind"] == "Service" and selected({"matchLabels": m["spec"]["selector"]}, leader)]
    assert len(services) == 4
    assert not any(selected({"matchLabels": m["spec"]["selector"]}, worker) for m in chart if m["kind"] == "Service")
    budget = of_kind(chart, "PodDisruptionBudget", "triune-server")["spec"]
    assert budget["maxUnavailable"] == 1 and selected(budget["selector"], leader) and selected(budget["selector"], worker)
    assert not selected(of_kind(chart, "PodDisruptionBudget", "triune-gateway")["spec"]["selector"], worker)


def test_groups_are_scaled_by_what_their_leaders_say(chart: Manifests) -> None:
    scalers = [m for m in chart if m["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("LeaderWorkerSet", "triune")
        assert target["apiVersion"] == of_kind(chart, "LeaderWorkerSet")["apiVersion"]
        assert "replicas" not in of_kind(chart, "LeaderWorkerSet")["spec"]
        for pattern in re.findall(r'pod=~"([^"]+)"', json.dumps(scaler["spec"]).replace("\\", "")):
            assert re.fullmatch(pattern, "triune-0") and not re.fullmatch(pattern, "triune-0-1")


def test_machines_reach_each_other_and_nobody_else_reaches_the_others(chart: Manifests, group: dict[str, Any]) -> None:
    leader, worker = (group[f"{name}Template"]["metadata"]["labels"] for name in ("leader", "worker"))
    policies = {m["metadata"]["name"]: m["spec"] for m in chart if m["kind"] == "NetworkPolicy"}

    def admits(rule: dict[str, Any], side: str, labels: dict[str, str]) -> bool:
        """Whether it is of all ports, for such a pod."""
        peers = [peer["podSelector"] for peer in rule.get(side, ()) if "podSelector" in peer]
        return "ports" not in rule and any(selected(peer, labels) for peer in peers)

    server, other = policies["triune-server"], policies["triune-worker"]
    assert selected(server["podSelector"], leader) and selected(other["podSelector"], worker)
    for spec, labels in ((server, worker), (other, leader), (other, worker)):
        assert any(admits(rule, "from", labels) for rule in spec["ingress"])
        assert any(admits(rule, "to", labels) for rule in spec["egress"])
    gateway = of_kind(chart, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert not any(selected(peer["podSelector"], gateway) for rule in other["ingress"] for peer in rule["from"])


def test_each_pod_keeps_its_engine_where_it_has_a_volume(chart: Manifests, group: dict[str, Any]) -> None:
    claims = [claim["metadata"]["name"] for claim in group.get("volumeClaimTemplates", ())]
    kinds = {volume["name"]: volume for volume in group["workerTemplate"]["spec"]["volumes"]}
    assert (claims == ["engine"]) is ("engine" not in kinds)
