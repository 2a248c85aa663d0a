"""Every error has a code, and it arrives at clients as it was raised. Run: pytest tests/runtime/test_errors.py"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.pb_utils import TritonError
from triune_client import BadRequest, Overloaded, ServerError
from triune_client._errors import from_message
from triune_runtime import errors
from triune_runtime.errors import CODES, RequestError, TriuneError
from triune_runtime.serving.tensors import error_text, triton_error, triton_error_again

FOLDER = Path(errors.__file__).parent
SOURCES = {path: ast.parse(path.read_text("utf-8")) for path in FOLDER.rglob("*.py") if path != Path(errors.__file__)}
WITHOUT_CODE = {"TooLong": "too_long", "Overloaded": "overloaded", "TriuneError": "internal"}
CLASSES = {"INVALID_ARGUMENT": BadRequest, "UNAVAILABLE": Overloaded, "INTERNAL": ServerError}
TRITONS = {
    "INVALID_ARGUMENT": TritonError.INVALID_ARG,
    "UNAVAILABLE": TritonError.UNAVAILABLE,
    "INTERNAL": TritonError.INTERNAL,
}


def calls(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def constants(nodes: list[ast.expr | None]) -> set[object]:
    return {leaf.value for node in nodes if node for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}


def codes_of(call: ast.Call) -> list[ast.expr]:
    return [keyword.value for keyword in call.keywords if keyword.arg == "code"]


def test_every_request_error_has_a_code() -> None:
    bare = [
        f"{path}:{call.lineno}"
        for path, tree in SOURCES.items()
        for call in calls(tree, {"RequestError"})
        if not codes_of(call)
    ]
    assert not bare


def test_every_code_is_raised_somewhere() -> None:
    makers = {
        node.name: node
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) == "RequestError"
    }
    raised = constants([default for maker in makers.values() for default in maker.args.defaults])
    for tree in SOURCES.values():
        for call in calls(tree, {*WITHOUT_CODE, "RequestError", *makers}):
            given_codes = codes_of(call)
            raised |= constants([*given_codes, *call.args] if call.func.id in makers else given_codes)  # type: ignore[attr-defined]
            if not given_codes and (code := WITHOUT_CODE.get(call.func.id)):  # type: ignore[attr-defined]
                raised.add(code)
    assert set(CODES) <= raised, set(CODES) - raised


def made(code: str, message: str = "what is wrong", param: str | None = None) -> TriuneError:
    status = CODES[code]  # type: ignore[index]
    if status == "INVALID_ARGUMENT":
        return RequestError(message, "mend it", code=code, param=param)  # type: ignore[arg-type]
    if status == "UNAVAILABLE":
        return errors.Overloaded(message, "mend it", code=code)  # type: ignore[arg-type]
    return TriuneError(message, "mend it", code=code)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("ensemble", ["", "in ensemble 'triune', "])
def test_a_client_gets_the_code_the_status_and_the_readable_message(code: str, ensemble: str) -> None:
    error = made(code, param="messages[0].content")
    received = from_message(ensemble + error_text(error), BadRequest)
    assert type(received) is CLASSES[error.status]
    assert (received.code, received.param, received.status) == (code, error.param, error.status)
    assert received.message == "what is wrong; hint: mend it"


@pytest.mark.parametrize("code", CODES)
def test_an_error_s_status_is_found_behind_an_ensemble_s_name(code: str) -> None:
    error = made(code, param="messages[0]")
    answered = triton_error(error, TritonError)
    again = triton_error_again(f"in ensemble 'ensemble', {answered}", TritonError)
    assert answered.code == again.code == TRITONS[error.status]
    assert str(again).endswith(str(answered))


def test_a_text_without_a_status_is_a_fault_of_the_server() -> None:
    for text in ("something else: INVALID", "NOT_INVALID_ARGUMENT: x", "INVALID_ARGUMENT of no kind"):
        assert triton_error_again(text, TritonError).code == TritonError.INTERNAL


@given(st.sampled_from(sorted(CODES)), st.text(), st.text() | st.none())
def test_whatever_a_client_sends_its_error_is_read_as_it_was_raised(code: str, message: str, param: str | None) -> None:
    error = made(code, f"x{message}", param)
    received = from_message(error_text(error), ServerError)
    assert (type(received), received.code, received.message) == (CLASSES[error.status], code, str(error))
    assert received.param in (None, error.param)


@pytest.mark.parametrize("param", ["a b", "a]: INTERNAL [internal]: b", "a\nb", "ä", "", "x" * 65])
def test_a_name_that_is_no_name_is_told_in_the_message_alone(param: str) -> None:
    assert error_text(made("unknown_option", param=param)) == "INVALID_ARGUMENT [unknown_option]: what is wrong; hint: mend it"
