"""What pip's lines say: how far it is, and in the end why it failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .errors import SetupError

_UNITS = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_FILE = re.compile(r"\s*(?:Downloading|Using cached) (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")
_LOCAL = re.compile(r"Processing (\S+\.whl)")
_INSTALLING = "Installing collected packages: "
_RETRYING = re.compile(r"WARNING: Retrying \(Retry\(total=(\d+)")
_OWN = "Obtaining file:"
BUILD_STEPS = 5  # lines of each of the checkout's own packages: its tools, two questions, its description, the package


class PipOutput:
    """How far pip is, by its lines so far."""

    def __init__(self) -> None:
        self.sizes: dict[str, float] = {}  # of each file, by its package: bytes
        self.file = ""  # the one that is being fetched
        self.packages: tuple[str, ...] = ()  # that are being unpacked, in this order; none while files are fetched
        self.building = 0  # how many of the checkout's own packages are made
        self.built = 0  # how many of BUILD_STEPS of these are done
        self.waiting = ""  # what it waits for, in words
        self.lines: list[str] = []

    @property
    def average(self) -> float:
        """Bytes of a file, by those that are known."""
        return sum(self.sizes.values()) / len(self.sizes) if self.sizes else 0.0

    def feed(self, line: str) -> None:
        """Take one line."""
        self.lines.append(line)
        if found := _FILE.match(line):
            self._fetching(found[1].rpartition("/")[2], float(found[2]) * _UNITS[found[3]])
        elif (found := _LOCAL.match(line)) and (path := Path(found[1])).is_file():
            self._fetching(path.name, path.stat().st_size)
        elif found := _RETRYING.match(line):
            self.waiting = f"the package index does not answer, {found[1]} more tries"
        elif line.startswith("Collecting "):
            self.waiting = ""
        elif line.startswith(_INSTALLING):
            self.packages = tuple(normal(name) for name in line.removeprefix(_INSTALLING).split(", "))
        elif line.startswith(_OWN):
            self.building += 1
        elif ": finished with status" in line:
            self.built += 1

    def _fetching(self, file: str, size: float) -> None:
        if file.endswith((".whl", ".tar.gz", ".zip")):  # not the metadata alone
            self.file = file
            self.sizes[normal(file.partition("-")[0])] = size


def normal(package: str) -> str:
    """A package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", package.strip()).lower()


# What pip says, what it means, what to do; the first that is found counts: the narrowest first.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (r"No space left on device|Disk quota exceeded|Errno 28|Errno 122", "the disk is full", "make room on it"),
    (r"Read-only file system|Errno 30", "the disk is read-only", "use a checkout on a disk that can be written to"),
    (r"Permission denied: '([^']*)'", "{0} cannot be written to", "make it writable, or use a checkout elsewhere"),
    (r"File too large|Errno 27", "a file grew beyond what is allowed here", "raise the limit: ulimit -f unlimited"),
    (
        r"(?s)THESE PACKAGES DO NOT MATCH THE HASHES.*?\n\s+(\S+?)(?:==\S+)? from ",
        "the file of {0} that the package index serves is not the one in the lock file",
        "check that the index serves the published files: pip config list",
    ),
    (
        r"Hashes are required|In --require-hashes mode",
        "the lock file has a package without a hash",
        "write it anew: make lock",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|certificate verify failed",
        "the package index's certificate is not trusted here",
        "name the certificates to trust: PIP_CERT=/path/to/bundle.pem",
    ),
    (r"\b(401|403) (?:Client )?Error|status code (401|403)", "the package index refuses access", "check the login in pip's"
     " settings: pip config list"),
    (r"ProxyError|Tunnel connection failed|Cannot connect to proxy", "the proxy cannot be reached", "check HTTPS_PROXY"),
    (
        r"NewConnectionError|NameResolutionError|name resolution|Name or service not known|Connection refused|"
        r"Network is unreachable|No route to host|ConnectTimeout|Failed to establish a new connection",
        "the package index cannot be reached",
        "check the network and pip's settings (pip config list), or name another index: PIP_INDEX_URL=...",
    ),
    (
        r"ReadTimeout|timed out|IncompleteRead|Connection broken|ConnectionResetError|RemoteDisconnected|Connection aborted",
        "the connection to the package index broke off",
        "run this again: what was fetched whole is in pip's cache",
    ),
    (
        r"(\S+) is not a trusted or secure host",
        "the package index {0} is not reached by HTTPS, and pip trusts no other",
        "name one with https://: PIP_INDEX_URL=...; or trust it: PIP_TRUSTED_HOST={0}",
    ),
    (r"HTTP error (\d+)|(\d{3}) Server Error", "the package index answers with HTTP {0}", "try again later"),
    (
        r"(?:No matching distribution found for|Could not find a version that satisfies the requirement) (\S+)",
        "the package index has no {0} for this Python and system",
        "check pip's settings (pip config list); behind a mirror, whether it is up to date",
    ),
    (r"MemoryError|Cannot allocate memory", "the memory is full", "end other programs"),
)  # fmt: skip
_LEFT_OUT = re.compile(r"(Location '.*' is ignored|\[notice\])")


def explained(lines: Sequence[str], words: str, exit_code: int, log: Path) -> SetupError:
    """The one sentence for what pip said when it failed.

    Args:
        words: what it was to bring.
        log: where all that it said can be read.
    """
    text = "\n".join(line for line in lines if not _LEFT_OUT.search(line))
    for pattern, meaning, remedy in _CAUSES:
        if found := re.search(pattern, text):
            values = [value for value in found.groups() if value]
            return SetupError(
                f"pip could not install {words}: {meaning.format(*values)}", f"{remedy.format(*values)}; pip's output is {log}"
            )
    said = [line.strip().removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR: ")]
    if exit_code < 0:
        said = [f"it was ended by signal {-exit_code}"]
    reason = next((line.strip() for line in [*said, *reversed(text.splitlines())] if line.strip()), f"exit code {exit_code}")
    return SetupError(f"pip could not install {words}: {reason}", f"run this again; pip's output is {log}")
