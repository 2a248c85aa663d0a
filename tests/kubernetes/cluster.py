"""One node of Kubernetes for tests, on this machine's loopback: etcd, the server, kubelet on Docker, kube-proxy, names.

Nothing in it is pulled: pods take the images that its Docker has.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from containers.engine import run
from kubernetes import settings
from support.charts import unpack

PORT, ETCD, ETCD_PEER = 26443, 22379, 22380
PAUSE = "triune-stand-in/pause"
SYSCTLS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables",
)  # fmt: skip
_CONTEXT = ssl.create_default_context()
_CONTEXT.check_hostname, _CONTEXT.verify_mode = False, ssl.CERT_NONE
Environment = dict[str, str]


@contextmanager
def cluster(docker: Environment, binaries: Path, folder: Path) -> Iterator[Environment]:
    """The environment in which kubectl and helm talk to a running one; all of it is gone in the end.

    Args:
        docker: the environment in which `docker` works.
        folder: an empty one, for what it writes and logs.
    """
    programs = unpack(binaries)
    (folder / "names").mkdir()
    address = node_address(docker)
    settings.write(folder, PORT, address)
    run("openssl", "genrsa", "-out", folder / "sa.key", "2048")
    environment = docker | {
        "KUBECONFIG": f"{folder}/kubeconfig",
        "PATH": f"{programs}:{docker['PATH']}",
        "HELM_CACHE_HOME": f"{folder}/helm",
    }
    socket = docker.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    kept = {name: Path("/proc/sys", name).read_text() for name in SYSCTLS if Path("/proc/sys", name).exists()}
    with ExitStack() as stack:
        stack.callback(_put_back, kept)
        stack.callback(_forget_rules)
        stack.callback(_unmount, folder)
        start = _starter(stack, folder, environment)
        start("etcd", *settings.etcd(folder, ETCD, ETCD_PEER))
        start(f"{binaries}/kube-apiserver", *settings.apiserver(folder, PORT, ETCD))
        _wait_ready(folder)
        start(f"{binaries}/kube-controller-manager", *settings.controller_manager(folder))
        start(f"{binaries}/kube-scheduler", *settings.scheduler(folder))
        start(f"{binaries}/kube-proxy", *settings.proxy(folder))
        start("dnsmasq", *settings.names(folder, address))
        start(f"{binaries}/kubelet", *settings.kubelet(folder, socket, PAUSE))
        stack.callback(_empty, environment)
        stack.enter_context(_named(environment, folder / "names"))
        deadline = time.monotonic() + 120
        while " Ready" not in run("kubectl", "get", "nodes", environment=environment):
            assert time.monotonic() < deadline, "the node is not ready"
            time.sleep(0.5)
        yield environment


def node_address(docker: Environment) -> str:
    """This machine as its pods see it."""
    form = "{{(index .IPAM.Config 0).Gateway}}"
    return run("docker", "network", "inspect", "bridge", "--format", form, environment=docker).strip()


def _starter(stack: ExitStack, folder: Path, environment: Environment) -> Callable[..., None]:
    def start(program: str, *arguments: str) -> None:
        log = (folder / f"{Path(program).name}.log").open("w")
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log, env=environment, start_new_session=True)
        stack.callback(_end, process)

    return start


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_ready(folder: Path) -> None:
    request = urllib.request.Request(f"https://127.0.0.1:{PORT}/readyz", headers={"authorization": f"Bearer {settings.TOKEN}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_CONTEXT))
    deadline = time.monotonic() + 60
    while True:
        try:
            with direct.open(request, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, (folder / "kube-apiserver.log").read_text()[-2000:]
            time.sleep(0.25)


@contextmanager
def _named(environment: Environment, folder: Path) -> Iterator[None]:
    """Have dnsmasq know every service by its name, as a cluster's own server of names would."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            done = subprocess.run(["kubectl", "get", "services", "-A", "-o", "json"], capture_output=True, env=environment)
            if done.returncode:
                continue
            for service in json.loads(done.stdout)["items"]:
                name, space = service["metadata"]["name"], service["metadata"]["namespace"]
                address = service["spec"].get("clusterIP", "None")
                file, text = folder / f"{space}.{name}", f"{address} {name}.{space}.svc.cluster.local\n"
                if address != "None" and not (file.exists() and file.read_text() == text):
                    file.write_text(text)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _empty(environment: Environment) -> None:
    """Have the kubelet end its pods, for it is to be stopped after them."""
    kinds = "statefulsets,deployments,jobs,pods,services,persistentvolumeclaims"
    command = ["kubectl", "delete", kinds, "--all", "--grace-period=2", "--timeout=60s"]
    subprocess.run(command, capture_output=True, env=environment)


def _unmount(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", mount], capture_output=True)


def _forget_rules() -> None:
    """Chains that kubelet and kube-proxy leave behind."""
    for program in ("iptables", "ip6tables"):
        for table in ("mangle", "nat", "filter"):
            command = [program, "-w", "-t", table]
            rules = subprocess.run([*command, "-S"], capture_output=True, text=True).stdout.splitlines()
            chains = [rule.split()[1] for rule in rules if rule.startswith("-N KUBE-")]
            for rule in (rule for rule in rules if rule.startswith("-A") and "-j KUBE-" in rule):
                subprocess.run([*command, "-D", *shlex.split(rule)[1:]], capture_output=True)
            for option in ("-F", "-X"):
                for chain in chains:
                    subprocess.run([*command, option, chain], capture_output=True)


def _put_back(kept: dict[str, str]) -> None:
    """What kubelet and kube-proxy set of the machine's kernel."""
    for name, value in kept.items():
        if Path("/proc/sys", name).read_text() != value and os.access(f"/proc/sys/{name}", os.W_OK):
            Path("/proc/sys", name).write_text(value)
