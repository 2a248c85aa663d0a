"""The chart in a cluster: installed, updated under load, rolled back, and what it survives. Run: make test-kubernetes"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.engine import run
from kubernetes.asking import MOST_TOKENS, PROMPT, asking
from kubernetes.claims import claim
from kubernetes.notes import note
from support.charts import CHART
from triune_client.grpc import GrpcClient

pytestmark = pytest.mark.timeout(1200)
Environment = dict[str, str]
STREAMS = 8
SAID = (
    "-f", str(CHART / "values-cpu.yaml"), "--set=image.tag=test,image.pullPolicy=Never",
    "--set=engine.source=claim,engine.claim.name=models",
    "--set=server.replicas=2,server.resources.requests.cpu=100m,server.resources.requests.memory=256Mi",
    "--set=server.drainSeconds=60,gateway.drainSeconds=60",
)  # fmt: skip
# The server of 1.20 cannot apply by itself what helm 4 sends.
UPGRADE = ("helm", "upgrade", "--install", "triune", str(CHART), *SAID, "--server-side=false", "--wait", "--timeout=6m")


@pytest.fixture(scope="module")
def release(kubernetes: Environment, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Two servers and two gateways, which `helm install --wait` has found ready."""
    claim(kubernetes, tmp_path_factory.mktemp("claim"), "models", repository)
    began = time.monotonic()
    run(*UPGRADE, environment=kubernetes)
    note("helm install --wait: two servers and two gateways are ready", began)
    yield kubernetes
    run("helm", "uninstall", "triune", "--wait", "--timeout=4m", environment=kubernetes)


def pods(environment: Environment) -> dict[str, dict[str, Any]]:
    """By name, those that are not about to end."""
    found = json.loads(run("kubectl", "get", "pods", "-l=app.kubernetes.io/name=triune", "-o", "json", environment=environment))
    return {p["metadata"]["name"]: p for p in found["items"] if "deletionTimestamp" not in p["metadata"]}


def identities(environment: Environment) -> set[str]:
    return {p["metadata"]["uid"] for p in pods(environment).values() if "test" not in p["metadata"]["name"]}


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def address(environment: Environment, service: str) -> str:
    said = json.loads(run("kubectl", "get", "service", f"triune-{service}", "-o", "json", environment=environment))["spec"]
    return f"{said['clusterIP']}:{said['ports'][0]['port']}"


def single(environment: Environment) -> str:
    """What the prompt is answered with when nothing else is asked."""
    with GrpcClient(address(environment, "grpc")) as client:
        return client.generate(PROMPT, max_tokens=MOST_TOKENS, ignore_eos=True, temperature=0).text


def test_it_can_answer_when_helm_says_that_it_is_ready(release: Environment) -> None:
    began = time.monotonic()
    assert "Paris" in run("helm", "test", "triune", "--logs", environment=release)
    note("helm test: a question was answered", began)


def test_its_pods_can_write_nothing_and_may_nothing(release: Environment) -> None:
    script = "id -u; touch /x 2> /dev/null || echo refused; grep -E '^(CapEff|CapBnd|Seccomp):' /proc/1/status"
    for name in ("triune-0", next(name for name in pods(release) if "gateway" in name)):
        said = run("kubectl", "exec", name, "--", "sh", "-c", script, environment=release).split()
        assert said == ["1000", "refused", "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "Seccomp:", "2"]


def test_an_older_server_gets_the_versions_that_it_knows(release: Environment) -> None:
    text = run("helm", "get", "manifest", "triune", environment=release)
    assert "policy/v1beta1" in text and "policy/v1\n" not in text


def test_a_rolling_update_under_load_fails_no_request_and_changes_no_text(release: Environment) -> None:
    expected, before, began = single(release), identities(release), time.monotonic()
    with asking(f"http://{address(release, 'openai')}", address(release, "grpc"), STREAMS) as heard:
        time.sleep(5)
        run(*UPGRADE, "--set=server.annotations.round=two,gateway.annotations.round=two", environment=release)
        for what in ("statefulset/triune", "deployment/triune-gateway"):
            run("kubectl", "rollout", "status", what, "--timeout=5m", environment=release)
        deadline = time.monotonic() + 120  # those that end are not waited for by either
        while any(uid in run("kubectl", "get", "pods", "-o", "yaml", environment=release) for uid in before):
            assert time.monotonic() < deadline
            time.sleep(1)
        time.sleep(5)
    note(
        f"helm upgrade: all four pods replaced under {STREAMS} streams; {len(heard.texts)} answers, "
        f"{len(heard.failures)} failed, {len(heard.refused)} refused and sent again",
        began,
    )
    assert not before & identities(release), "every pod is a new one"
    assert not heard.failures
    assert len(heard.texts) > STREAMS and set(heard.texts) == {expected}


def test_a_pod_that_is_deleted_comes_back_and_the_others_answer(release: Environment) -> None:
    expected, began = single(release), time.monotonic()
    old = pods(release)["triune-0"]["metadata"]["uid"]
    with asking(f"http://{address(release, 'openai')}", address(release, "grpc"), 2) as heard:
        run("kubectl", "delete", "pod", "triune-0", "--wait=false", environment=release)
        deadline = time.monotonic() + 240
        while not (new := pods(release).get("triune-0")) or new["metadata"]["uid"] == old or not is_ready(new):
            assert time.monotonic() < deadline, new
            time.sleep(1)
    note(f"a deleted server's pod is ready again; {len(heard.texts)} answers meanwhile, {len(heard.failures)} failed", began)
    assert not heard.failures and heard.texts and set(heard.texts) == {expected}


def test_a_server_that_is_killed_starts_again_by_itself(release: Environment) -> None:
    expected, began = single(release), time.monotonic()
    script = "for comm in /proc/[0-9]*/comm; do [ $(cat $comm) != tritonserver ] || kill -9 $(echo $comm | cut -d/ -f3); done"
    for name in ("triune-0", "triune-1"):
        run("kubectl", "exec", name, "--", "bash", "-c", script, environment=release)
    for name in ("triune-0", "triune-1"):
        deadline = time.monotonic() + 120
        asked = ["kubectl", "exec", name, "--", "triune", "health", "--deep"]
        while (done := subprocess.run(asked, capture_output=True, env=release)).returncode:
            assert time.monotonic() < deadline, done.stdout
            time.sleep(1)
    note("both Tritons, killed, generate again in the same containers", began)
    assert single(release) == expected
    restarts = {
        s["restartCount"] for name in ("triune-0", "triune-1") for s in pods(release)[name]["status"]["containerStatuses"]
    }
    assert restarts == {0}


def test_a_bad_release_takes_nothing_down_and_is_rolled_back(release: Environment) -> None:
    expected, began = single(release), time.monotonic()
    command = [word for word in UPGRADE if not word.startswith("--timeout")]
    done = subprocess.run([*command, "--set=image.tag=none", "--timeout=20s"], capture_output=True, text=True, env=release)
    assert done.returncode, "an image that is not there cannot be ready"
    note("helm upgrade to an image that is not there has given up", began)
    assert single(release) == expected
    run("helm", "rollback", "triune", "--server-side=false", "--wait", "--timeout=5m", environment=release)
    run("kubectl", "rollout", "status", "statefulset/triune", "--timeout=5m", environment=release)
    note("helm rollback --wait: all are ready", began)
    assert "Paris" in run("helm", "test", "triune", "--logs", environment=release)
    images = {c["image"] for name, p in pods(release).items() for c in p["spec"]["containers"]}
    assert images == {"triune-cpu:test"}
