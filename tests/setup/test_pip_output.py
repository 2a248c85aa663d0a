"""What pip says becomes percent, bytes and remaining time, or one sentence. Run: pytest tests/setup/test_pip_output.py"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from triune_setup import shown as shown_module
from triune_setup.pip_output import PipOutput, explained
from triune_setup.shown import Shown, progress

REFUSED = "NewConnectionError('<HTTPConnection object at 0x7f04>: Failed to establish a new connection: [Errno 111] ...')"
NO_VERSION = "ERROR: Could not find a version that satisfies the requirement idna==3.10 (from versions: none)"
NONE = "ERROR: No matching distribution found for idna==3.10"
MISMATCH = """ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated \
the package versions, please update the hashes. Otherwise, examine the package contents carefully.
    idna==3.10 from http://host/idna-3.10-py3-none-any.whl (from -r requirements/base.txt (line 7)):
        Expected sha256 12f6
             Got        946d
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: Could not install packages due to an OSError: [Errno 27] File too large", "beyond what is allowed"),
        ("OSError: [Errno 30] Read-only file system: '/x/y'", "the disk is read-only"),
        ("ERROR: ... [Errno 13] Permission denied: '/x/y'\nConsider using the `--user` option", "/x/y cannot be written to"),
        (
            f"WARNING: Retrying (Retry(total=0)) after connection broken by '{REFUSED}'\n{NO_VERSION}\n{NONE}",
            "cannot be reached",
        ),
        (
            f"after connection broken by 'ProxyError('Cannot connect to proxy.', {REFUSED})'\n{NONE}",
            "the proxy cannot be reached",
        ),
        (
            f"Could not fetch URL: SSLError(SSLCertVerificationError(1, 'certificate verify failed'))\n{NONE}",
            "not trusted here",
        ),
        (
            f"WARNING: The repository located at h.local is not a trusted or secure host and is being ignored.\n{NONE}",
            "h.local",
        ),
        (f"{NO_VERSION}\n{NONE}", "the package index has no idna==3.10"),
        (MISMATCH, "the file of idna that the package index serves is not the one in the lock file"),
        ("ERROR: HTTP error 503 while getting http://host/x.whl", "answers with HTTP 503"),
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out.", "broke off"),
        ("ERROR: something that nobody foresaw", "something that nobody foresaw"),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'y'", "KeyError: 'y'"),
    ],
)
def test_a_failure_is_one_sentence_with_its_cause(said: str, words: str) -> None:
    error = explained(said.splitlines(), "packages", 1, Path(".venv/pip.log"))
    assert str(error).startswith("pip could not install packages: ") and words in str(error)
    assert "\n" not in f"{error}{error.hint}" and "Traceback" not in str(error)
    assert error.hint.endswith("pip's output is .venv/pip.log")


def test_lines_of_pip_become_files_with_sizes(tmp_path: Path) -> None:
    (tmp_path / "rich-15.0.0-py3-none-any.whl").write_bytes(b"x" * 300)
    output = PipOutput()
    for line in (
        "Collecting annotated-doc==0.0.7 (from -r requirements/base.txt (line 1))",
        "  Downloading https://host/a/annotated_doc-0.0.7-py3-none-any.whl.metadata (2.3 kB)",
        "  Downloading https://host/a/annotated_doc-0.0.7-py3-none-any.whl (5.3 kB)",
        "  Using cached onnx-1.20.0-cp311-cp311-manylinux_2_17_x86_64.whl (18.1 MB)",
        f"Processing {tmp_path}/rich-15.0.0-py3-none-any.whl (from -r requirements/base.txt (line 9))",
    ):
        output.feed(line)
    assert output.sizes == {"annotated-doc": 5300.0, "onnx": 18.1e6, "rich": 300}
    assert output.packages == () and output.waiting == ""
    output.feed("WARNING: Retrying (Retry(total=3, connect=None)) after connection broken by ...")
    assert output.waiting == "the package index does not answer, 3 more tries"
    output.feed("Installing collected packages: onnx, annotated_doc, rich")
    assert output.packages == ("onnx", "annotated-doc", "rich")


def test_progress_tells_percent_bytes_and_time() -> None:
    assert progress(0.25, 10.0, "packages: onnx", 200e6) == " 25%, 50 of 200 MB, 30 s left, packages: onnx"
    assert progress(0.5, 400.0, "x", 2e6) == " 50%, 1.0 of 2.0 MB, 7 min left, x"
    assert progress(0.5, 0.1, "x") == " 50%, x", "too early to tell the time"
    assert progress(1.0, 9.0, "x") == "100%, x"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Shown, "_width", lambda self: 30)
    out = Terminal()
    shown = Shown(out)
    shown.update("fetch", "40%, and much more than fits into a narrow window")
    shown.update("fetch", "50%")
    assert "\n" not in out.getvalue()
    assert all(len(line.removesuffix("\x1b[K")) < 30 for line in out.getvalue().split("\r"))
    shown.say("done")
    assert out.getvalue().endswith("\r\x1b[Kdone\n")


def test_elsewhere_there_is_a_line_every_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(shown_module.time, "monotonic", lambda: now)
    out = io.StringIO()
    shown = Shown(out)
    for now in range(35):
        shown.update("fetch", f"{now}%")
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["11%", "22%", "33%"]
    assert "\r" not in out.getvalue() and "\x1b" not in out.getvalue()
