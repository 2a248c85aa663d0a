"""Where several machines that serve one engine meet: an address of the first one, and what vLLM must know of the network."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from ...errors import ManifestError

VARIABLE = "TRIUNE_VLLM_MASTER"  # of the environment of the first one: its own address, as the others reach it
PORT = 29500
GLOO, NCCL, OWN_ADDRESS = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "VLLM_HOST_IP"  # what libraries read
_EXAMPLE = f"e.g. 10.0.0.1, or 10.0.0.1:{PORT}"


@dataclass(frozen=True)
class Meeting:
    """An address and a port. vLLM's own meeting is at the next port."""

    address: str
    port: int = PORT

    @classmethod
    def parse(cls, said: str, who: str) -> Meeting:
        """ADDRESS or ADDRESS:PORT.

        Args:
            who: what said it, for the error.

        Raises:
            ManifestError: it is neither.
        """
        address, colon, port = said.partition(":")
        if not _is_name(address) or (colon and not (port.isdecimal() and 0 < int(port) < 65535)):
            raise ManifestError(f"{who} is {said!r}; expected an address, and maybe a port below 65535", _EXAMPLE)
        return cls(address, int(port) if colon else PORT)

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"

    def arguments(self, nodes: int, rank: int) -> dict[str, object]:
        """vLLM's arguments on the machine of that rank, of so many."""
        return {"nnodes": nodes, "node_rank": rank, "master_addr": self.address, "master_port": self.port + 1}


def _is_name(said: str) -> bool:
    """Whether it can be an address, or the name of one."""
    try:
        return bool(said) and bool(said.encode("idna"))
    except UnicodeError:
        return False


def network_of(address: str, around: Mapping[str, str]) -> dict[str, str]:
    """The environment in which vLLM uses the network in which this machine has an address.

    Args:
        around: of this process. What it says of the network holds.

    Raises:
        ManifestError: it has none of that name.
    """
    number = _resolved(address)
    for name, its in psutil.net_if_addrs().items():
        if any(one.address == number for one in its):
            found = {OWN_ADDRESS: number, GLOO: name, NCCL: name}
            return {variable: around.get(variable) or value for variable, value in found.items()}
    raise ManifestError(f"this machine has no address {number}", f"name one that the others reach it by: {VARIABLE}=ADDRESS")


def _resolved(address: str) -> str:
    """An address of IPv4, as a number.

    Raises:
        ManifestError: this machine does not know the name.
    """
    try:
        return socket.gethostbyname(address)
    except OSError as error:
        said = f"{VARIABLE} is {address}, which is no address that this machine knows: {error}"
        raise ManifestError(said, f"give the address itself, {_EXAMPLE}, or add the name to /etc/hosts") from None
