"""The chart is valid by Kubernetes' own schemas, whatever is set, and refuses what is wrong. Run: make test-containers"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from support.charts import CHART, ROOT, SETS, SHA, TOOLS, helm, of_kind, render
from triune_server.command import SETTINGS

NEWEST = "1.37"
OPERATORS = json.loads(Path(__file__).with_name("operators.schema.json").read_text("utf-8"))  # of what is rendered, strictly
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
REFUSED = {
    "image.tag=latest": "name a version",
    "server.gpus=two": "/server/gpus",
    "server.replica=2": "replica",
    "server.shm=lots": "/server/shm",
    "model.target=rocm": "/model/target",
    "engine.source=magic": "/engine/source",
    "engine.source=claim": "engine.claim.name is empty",
    "engine.source=archive,engine.archive.url=https://x.example/a": "`sha256sum FILE` says it",
    "server.gpus=0": "take values-cpu.yaml",
    "server.kind=LeaderWorkerSet": "kind",
    "server.nodes=0": "/server/nodes",
    "server.nodes=2": "take model.target=vllm, or server.nodes=1",
    "model.target=vllm,server.nodes=2": "name them, e.g. engine.build.settings.gpu=h200",
    "model.target=vllm,server.gpus=8,engine.build.settings.gpu=h200": "240 MiB there for each of 8 GPUs; make it 3Gi",
    "engine.build.settings.nodes=2": "use server.nodes",
    "engine.build.settings.gpus=2": "use server.gpus",
    "server.preStopSeconds=10": "make preStopSeconds larger",
    "autoscaling.kind=hpa,autoscaling.minReplicas=9": "must not be larger",
    "services.openai.type=Magic": "/services/openai/type",
    "engine.build.settings.precison=int8": "there is no setting of that name",
    "engine.build.settings.target=cpu": "use model.target",
    "server.settings.http_port=9000": "use services",
    "server.settings.host=127.0.0.1": "use services",
    "server.settings.grpc_host=127.0.0.1": "use services",
    "server.settings.tls_cert=/x": "use gateway.tls",
    "gateway.settings.tls_key=/x": "use gateway.tls",
    "server.settings.models=x": "one release for each model",
    "server.settings.drain_s=300": "use server.drainSeconds",
    "gateway.settings.api_key_file=/x": "use gateway.apiKeys",
    "server.env[0].name=TRIUNE_HTTP_PORT": "server.settings, as http_port",
    "model.name=/checkpoint": "engine.build.checkpointClaim",
    "model.name=x;rm": "/model/name",
    "model.alias=a b": "/model/alias",
    "model.target=cpu": "take -f values-cpu.yaml",
    "server.resources.limits.memory=1Gi": "less than server.resources.requests.memory",
    "server.shm=64Gi": "counts as memory",
    "gateway.replicas=0": "gateway.enabled=false",
    "image.digest=latest": "/image/digest",
    "podSecurityContext.runAsUser=0": "/podSecurityContext/runAsUser",
}


@pytest.fixture(scope="module")
def charts(programs: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: render(programs, *said) for name, said in SETS.items()}


def of_groups(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods of LeaderWorkerSets."""
    groups = [m["spec"]["leaderWorkerTemplate"] for m in manifests if m["kind"] == "LeaderWorkerSet"]
    return [group[name] for group in groups for name in ("leaderTemplate", "workerTemplate")]


def containers(manifests: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every pod's spec with each of its containers."""
    found = []
    for manifest in manifests:
        spec = manifest.get("spec", {})
        templates = [t for t in (spec.get("template"), *of_groups([manifest])) if t]
        for pod in [*(t["spec"] for t in templates), *([spec] if manifest["kind"] == "Pod" else [])]:
            found += [(pod, one) for one in (*pod.get("initContainers", ()), *pod["containers"])]
    return found


def test_helm_has_nothing_to_say(programs: Path) -> None:
    for said in SETS.values():
        done = helm(programs, "lint", "--strict", CHART, *said)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_set_of_values_is_valid_by_the_schemas_of_kubernetes(
    charts: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    for name, manifests in charts.items():
        known = [m for m in manifests if f"{m['apiVersion']}/{m['kind']}" not in OPERATORS["kinds"]]
        known += [
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": t} for t in of_groups(manifests)
        ]
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(known))
    command = [TOOLS / "bin" / "kubernetes-validate", "--strict", "-k", NEWEST, *sorted(tmp_path.glob("*.yaml"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "WARN" not in done.stdout + done.stderr, done.stdout + done.stderr


def test_every_set_of_values_is_valid_by_the_schemas_of_operators(charts: dict[str, list[dict[str, Any]]]) -> None:
    seen = set()
    for manifests in charts.values():
        for manifest in manifests:
            if schema := OPERATORS["kinds"].get(f"{manifest['apiVersion']}/{manifest['kind']}"):
                jsonschema.validate(manifest, schema | {"definitions": OPERATORS["definitions"]})
                seen.add(manifest["kind"])
    assert seen == {"ServiceMonitor", "PrometheusRule", "ScaledObject", "LeaderWorkerSet"}


@pytest.mark.parametrize("said", REFUSED)
def test_wrong_values_are_refused_in_a_sentence(programs: Path, said: str) -> None:
    done = helm(programs, "template", "triune", CHART, "--set", said)
    assert done.returncode and REFUSED[said] in done.stderr, done.stderr


def test_the_schema_knows_every_value_and_its_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    jsonschema.validate(VALUES, schema)
    assert set(schema["properties"]) == set(VALUES) | {"global"}
    for area, values in VALUES.items():
        assert set(schema["properties"][area]["properties"]) == set(values), area


def test_an_image_can_be_named_by_its_digest(programs: Path) -> None:
    manifests = render(programs, f"--set=image.digest=sha256:{SHA}")
    assert {container["image"] for _, container in containers(manifests)} == {f"triune@sha256:{SHA}"}


def test_users_and_groups_can_be_left_to_the_cluster(programs: Path) -> None:
    manifests = render(programs, "--set=podSecurityContext.runAsUser=null,podSecurityContext.fsGroup=null")
    for pod, _ in containers(manifests):
        assert not {"runAsUser", "fsGroup"} & set(pod["securityContext"]) and pod["securityContext"]["runAsNonRoot"] is True


def test_the_chart_knows_every_setting(charts: dict[str, list[dict[str, Any]]]) -> None:
    assert (CHART / "files" / "settings.txt").read_text("utf-8").split() == sorted(SETTINGS)


def test_images_have_the_version_of_the_project(charts: dict[str, list[dict[str, Any]]]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (version, version)
    for manifests in charts.values():
        images = {container["image"] for _, container in containers(manifests)}
        assert images and images <= {f"triune:{version}", f"triune-cpu:{version}"}


def test_every_container_is_as_strict_as_can_be(charts: dict[str, list[dict[str, Any]]]) -> None:
    for manifests in charts.values():
        for pod, container in containers(manifests):
            own, shared = container["securityContext"], pod["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert shared["runAsUser"] == 1000 and shared["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
            assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
            assert not any("hostPath" in volume for volume in pod["volumes"])
            written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert written <= {"/tmp", "/run/triune", "/dev/shm", "/build"}, "what docs/containers.md names"


def test_every_mount_has_its_volume(charts: dict[str, list[dict[str, Any]]]) -> None:
    for manifests in charts.values():
        specs = [m.get("spec", {}) for m in manifests]
        owners = [*specs, *(spec["leaderWorkerTemplate"] for spec in specs if "leaderWorkerTemplate" in spec)]
        claimed = {c["metadata"]["name"] for owner in owners for c in owner.get("volumeClaimTemplates", ())}
        for pod, container in containers(manifests):
            volumes = {volume["name"] for volume in pod["volumes"]} | claimed
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_with_a_certificate_gateways_are_asked_over_tls_by_everybody(charts: dict[str, list[dict[str, Any]]]) -> None:
    manifests = charts["tls"]
    (pod,) = [m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment"]
    (gateway,) = pod["containers"]
    said = {one["name"]: one["value"] for one in gateway["env"]}
    (place,) = [mount["mountPath"] for mount in gateway["volumeMounts"] if mount["name"] == "tls"]
    assert said["TRIUNE_TLS_CERT"] == f"{place}/tls.crt" and said["TRIUNE_TLS_KEY"] == f"{place}/tls.key"
    assert {gateway[f"{probe}Probe"]["httpGet"]["scheme"] for probe in ("startup", "readiness", "liveness")} == {"HTTPS"}
    (test,) = [m["spec"] for m in manifests if m["kind"] == "Pod"]
    assert test["containers"][0]["args"][0].startswith("https://")
    monitors = {m["metadata"]["name"]: m["spec"]["endpoints"][0] for m in manifests if m["kind"] == "ServiceMonitor"}
    assert monitors["triune-openai"]["scheme"] == "https" and "scheme" not in monitors["triune-metrics"]
    assert "TLS" not in json.dumps([m for m in charts["claim"] if m["kind"] == "Deployment"])


def test_services_monitors_and_policies_select_pods_that_are_there(charts: dict[str, list[dict[str, Any]]]) -> None:
    for manifests in charts.values():
        text = "\n".join(json.dumps(m) for m in manifests)
        selectors = [m["spec"]["selector"] for m in manifests if m["kind"] in ("Service", "PodDisruptionBudget")]
        components = set(re.findall(r"\b(server|worker|gateway)\b", json.dumps(selectors)))
        assert all(re.search("server|gateway", json.dumps(selector)) for selector in selectors)
        for component in components:
            assert f'"app.kubernetes.io/component": "{component}"' in text
        services = {m["metadata"]["labels"]["triune/service"]: m for m in manifests if m["kind"] == "Service"}
        for monitor in (m for m in manifests if m["kind"] == "ServiceMonitor"):
            service = services[monitor["spec"]["selector"]["matchLabels"]["triune/service"]]
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_the_preset_of_r1_has_the_memory_and_gpus_that_it_is_for(charts: dict[str, list[dict[str, Any]]]) -> None:
    (server,) = of_kind(charts["values-r1"], "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert server["resources"]["requests"]["memory"] == "128Gi"
    assert server["resources"]["limits"] == {"memory": "256Gi", "nvidia.com/gpu": "2"}


def test_stable_versions_are_taken_where_they_are_known(charts: dict[str, list[dict[str, Any]]]) -> None:
    """What 1.20 gets in their place, its own server says: `make test-kubernetes`."""
    assert of_kind(charts["hpa"], "HorizontalPodAutoscaler")["apiVersion"] == "autoscaling/v2"
    assert of_kind(charts["hpa"], "PodDisruptionBudget", "triune-server")["apiVersion"] == "policy/v1"


def test_alerts_are_those_of_monitoring(charts: dict[str, list[dict[str, Any]]], programs: Path) -> None:
    file = ROOT / "deploy" / "monitoring" / "triune.rules.yml"
    assert (CHART / "files" / "triune.rules.yml").resolve() == file
    assert of_kind(charts["values-r1"], "PrometheusRule")["spec"] == yaml.safe_load(file.read_text("utf-8"))
    elsewhere = render(programs, "--set=monitoring.prometheusRule.enabled=true,monitoring.runbooks=https://x.example/r")
    (down, *_) = [r for g in of_kind(elsewhere, "PrometheusRule")["spec"]["groups"] for r in g["rules"] if "alert" in r]
    assert down["annotations"]["runbook_url"].startswith("https://x.example/r#")


def test_notes_say_how_to_ask(programs: Path) -> None:
    done = helm(programs, "install", "mine", CHART, "--dry-run=client", "--set=gateway.apiKeys.secret=keys")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "service/mine-triune-openai 8003:8003" in notes and "authorization: Bearer" in notes and "helm test mine" in notes
