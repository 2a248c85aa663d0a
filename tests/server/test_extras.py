"""What is said where a package is not installed. Run: pytest tests/server/test_extras.py

Environments that really lack them are those of tests/test_packages.py.
"""

from __future__ import annotations

from importlib import metadata

import pytest

from triune_server import extras
from triune_server.errors import ServerError


def not_found(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_missing_package_is_told_with_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    extras.tell_missing(not_found("onnx_ir.passes"), "build")
    assert capsys.readouterr().err == (
        'error: `triune build` needs the package onnx_ir, which is not installed\n\nhint: pip install "triune[builder]"\n'
    )


@pytest.mark.parametrize(("name", "command"), [("triune_builder.gone", "build"), ("json.gone", "build"), ("numpy", "down")])
def test_a_fault_of_our_own_is_not_taken_for_a_missing_package(name: str, command: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        extras.tell_missing(not_found(name), command)


def test_a_server_without_its_packages_is_refused_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["httpx>=0.28", 'a>=1; extra == "server"', 'b[c]>=1,<2; extra == "server"', 'd; extra == "gateway"']
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(extras, "_is_installed", lambda name: name == "a")
    with pytest.raises(ServerError, match=r"not installed: b, d;") as refused:
        extras.check_server_packages(gateway=True)
    assert refused.value.hint == 'pip install "triune[server]"'
    with pytest.raises(ServerError, match=r"not installed: b;"):
        extras.check_server_packages(gateway=False)


def test_a_tree_of_sources_that_is_not_installed_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert extras.missing("server") == []
