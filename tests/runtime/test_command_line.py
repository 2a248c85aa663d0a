"""How commands tell of errors: never by a traceback. Run: pytest tests/runtime/test_command_line.py"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from triune_runtime.command_line import CRASHED, FAILED, errors_told
from triune_runtime.crash import report
from triune_runtime.errors import ManifestError

PATHS = os.pathsep.join(p for p in sys.path if p)


def told(error: BaseException, capsys: pytest.CaptureFixture[str], exit_code: int = FAILED) -> str:
    with pytest.raises(SystemExit) as ended, errors_told():
        raise error
    assert ended.value.code == exit_code
    found = capsys.readouterr()
    assert found.out == "" and "Traceback" not in found.err and found.err.count("error: ") == 1
    return found.err


def test_an_error_of_our_own_is_a_sentence_and_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(ManifestError("too bad", "try less"), capsys) == "error: too bad\n\nhint: try less\n"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.ENOSPC, "No space left on device", "build/x"), "the disk is full: build/x"),
        (OSError("1048576 requested and 4096 written"), "the disk is full"),  # NumPy's words
        (PermissionError(errno.EACCES, "Permission denied", "/root/build"), "/root/build is not permitted"),
        (OSError(errno.EROFS, "Read-only file system", "build"), "build lies on a disk that is read-only"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", b"a/b"), "a/b has a file where a folder is needed"),
        (FileNotFoundError(errno.ENOENT, "No such file", Path("gone")), "gone does not exist"),
        (MemoryError(), "there is not enough memory"),
    ],
)
def test_what_a_machine_does_to_anybody_is_no_fault_of_ours(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(error, capsys)
    assert said.startswith(f"error: {says}") and "\n\nhint: " in said and "report" not in said


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(ManifestError("no model '\x1b[2J\x9b\r\x07', für 模型"), capsys)
    assert said == "error: no model '\\x1b[2J\\x9b\\r\\x07', für 模型\n"


def test_a_fault_goes_to_a_file_whose_path_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("SOME_API_KEY", "swordfish-1234")
    monkeypatch.setattr(sys, "argv", ["triune", "up", "--token", "open-sesame", "--model=x", "--api-key-file=keys"])
    said = told(ValueError("odd: swordfish-1234 was not liked"), capsys, CRASHED)
    (path,) = tmp_path.iterdir()
    assert str(path) in said and path.stat().st_mode & 0o777 == 0o600
    text = path.read_text("utf-8")
    assert "Traceback" in text and "ValueError: odd" in text and "test_command_line.py" in text and "python " in text
    assert "swordfish" not in text and "open-sesame" not in text
    assert "--token" in text and "--model=x" in text and "--api-key-file=keys" in text


def test_a_fault_that_cannot_be_written_down_is_told_all_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    assert "KeyError: 'x'" in told(KeyError("x"), capsys, CRASHED)


@pytest.mark.parametrize("name", ["--api-key=abcdefgh", "HF_TOKEN=abcdefgh", "--hf-token=abcdefgh", "--password=abcdefgh"])
def test_secrets_of_the_command_line_are_hidden(name: str) -> None:
    text = report(ValueError("abcdefgh"), ["triune", name], {})
    assert "abcdefgh" not in text and name.partition("=")[0] in text


def test_a_reader_that_left_ends_a_command_without_a_word() -> None:
    program = (
        "from triune_runtime.command_line import errors_told\n"
        "with errors_told():\n    [print('x' * 100, flush=True) for _ in range(100_000)]"
    )
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c \"$0\" | head -1; exit ${{PIPESTATUS[0]}}", program],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": PATHS}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("module", ["triune_builder", "triune_server", "triune_server.entry"])
def test_no_command_ends_in_a_traceback(module: str, tmp_path: Path) -> None:
    """What an import raises, too: here of a module that every one of them needs."""
    (tmp_path / "psutil.py").write_text("raise ValueError('broken package')")
    done = subprocess.run(
        [sys.executable, "-m", module, "build"], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), PATHS)), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == CRASHED and "Traceback" not in done.stderr
    (path,) = re.findall(r"report is in (\S+)\n", done.stderr)
    assert "broken package" in Path(path).read_text("utf-8")


@pytest.mark.parametrize("where", ["file/build", "locked/build"])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, where: str) -> None:
    if where.startswith("locked") and os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    done = subprocess.run(
        [sys.executable, "-m", "triune_builder", "build", "--build-dir", tmp_path / where, "--model", "r1-nano"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": PATHS}, check=False,
    )  # fmt: skip
    assert done.returncode == FAILED and str(tmp_path / where) in done.stderr
    assert re.search(r"is not permitted|cannot be used", done.stderr) and "hint: " in done.stderr
