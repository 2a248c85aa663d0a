"""What the parts of the cluster are started with."""

from __future__ import annotations

from pathlib import Path

TOKEN = "of-the-tests"
NODE = "localhost"
_SERVICES = "10.96.0.0/16"
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: here, cluster: {{server: "https://127.0.0.1:{port}", insecure-skip-tls-verify: true}}}}]
users: [{{name: admin, user: {{token: {token}}}}}]
contexts: [{{name: here, context: {{cluster: here, user: admin}}}}]
current-context: here
"""
_KUBELET = """\
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
address: 127.0.0.1
port: 20250
healthzPort: 20248
readOnlyPort: 0
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
clusterDNS: ["{names}"]
clusterDomain: cluster.local
evictionHard: {{nodefs.available: "1%", imagefs.available: "1%", memory.available: "100Mi", nodefs.inodesFree: "1%"}}
imageGCHighThresholdPercent: 100
"""


def write(folder: Path, port: int, names: str) -> None:
    """The files that they read."""
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
    (folder / "kubeconfig").write_text(_KUBECONFIG.format(port=port, token=TOKEN))
    (folder / "kubelet.yaml").write_text(_KUBELET.format(names=names))


def etcd(folder: Path, port: int, peer: int) -> list[str]:
    urls = f"http://127.0.0.1:{port}"
    return [f"--data-dir={folder}/etcd", f"--listen-client-urls={urls}", f"--advertise-client-urls={urls}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", "--unsafe-no-fsync"]  # fmt: skip


def apiserver(folder: Path, port: int, etcd: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1", "--advertise-address=192.0.2.2",
        f"--secure-port={port}", "--insecure-port=0", f"--cert-dir={folder}/certs",
        f"--service-account-key-file={folder}/sa.key",
        f"--service-account-signing-key-file={folder}/sa.key", "--service-account-issuer=https://kubernetes.default.svc",
        f"--token-auth-file={folder}/tokens.csv", f"--service-cluster-ip-range={_SERVICES}", "--authorization-mode=RBAC,Node",
        "--kubelet-preferred-address-types=Hostname", "--allow-privileged", "--feature-gates=RemoveSelfLink=false",
    ]  # fmt: skip


def controller_manager(folder: Path) -> list[str]:
    return [
        f"--kubeconfig={folder}/kubeconfig", f"--service-account-private-key-file={folder}/sa.key", "--leader-elect=false",
        "--use-service-account-credentials", "--bind-address=127.0.0.1", "--secure-port=20257", "--port=0",
        f"--cert-dir={folder}/controller",
    ]  # fmt: skip


def scheduler(folder: Path) -> list[str]:
    return [f"--kubeconfig={folder}/kubeconfig", "--bind-address=127.0.0.1", "--secure-port=20259", "--port=0",
            "--leader-elect=false", f"--cert-dir={folder}/scheduler"]  # fmt: skip


def proxy(folder: Path) -> list[str]:
    """As itself on any machine, but for limits of the kernel's that it may not raise in a container."""
    return [
        f"--kubeconfig={folder}/kubeconfig", f"--hostname-override={NODE}", "--proxy-mode=iptables", "--masquerade-all",
        "--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0", "--healthz-bind-address=127.0.0.1:20256",
        "--metrics-bind-address=127.0.0.1:20249", "--iptables-min-sync-period=1s",
    ]  # fmt: skip


def kubelet(folder: Path, socket: str, pause: str) -> list[str]:
    return [
        f"--config={folder}/kubelet.yaml", f"--kubeconfig={folder}/kubeconfig", "--container-runtime=docker",
        f"--docker-endpoint={socket}", f"--pod-infra-container-image={pause}", f"--root-dir={folder}/kubelet",
        f"--cert-dir={folder}/kubelet-certs", f"--hostname-override={NODE}",
    ]  # fmt: skip


def names(folder: Path, address: str) -> list[str]:
    """dnsmasq: a file of `names` is read as soon as it is there."""
    return ["--no-daemon", f"--listen-address={address}", "--bind-interfaces", "--no-resolv", "--no-hosts",
            "--local=/cluster.local/", f"--hostsdir={folder}/names", "--user=root", "--conf-file=/dev/null"]  # fmt: skip
