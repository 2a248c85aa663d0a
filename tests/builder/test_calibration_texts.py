"""A user's own texts to calibrate on. Run: pytest tests/builder/test_calibration_texts.py"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.tensorrt_engines import LENGTH, tiny
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from triune_builder import cli
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.plan import plan_of
from triune_builder.quantize.policy import GPTQ, OBSERVED
from triune_builder.quantize.schemes import SCHEMES
from triune_builder.targets import calibration, find_target
from triune_builder.targets.calibration import quantize_calibrated
from triune_builder.targets.cpu.precisions import find_precision
from triune_builder.verify.report import BuildReport
from triune_builder.verify.texts import read_user_text, token_ids
from triune_server.building import Building
from triune_server.settings import DEFAULT, OPTION, Values

SMALL = ("--max-sequences", 2, "--max-length", 48, "--prefill-chunk", 16)
HARVEST = "The harvest was late, and the carts stood empty in the yard until the rain had stopped. " * 4
CODE = "def f(x: int) -> int:\n    return {0: 1, 1: 1}.get(x) or f(x - 1) + f(x - 2)\n" * 4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", tiny_checkpoint(hidden_size=64, intermediate_size=96, head_dim=16))


def build(model: Path, *arguments: object) -> Result:
    own = ["build", "--model", model, "--build-dir", model.parent / "build", "--json", *SMALL, *arguments]
    return CliRunner().invoke(cli.app, [str(a) for a in own])


def built(model: Path, *arguments: object) -> tuple[dict[str, Any], bytes]:
    """What the build tells, and the engine's weights."""
    found = build(model, *arguments)
    assert found.exit_code == 0, found.output
    told: dict[str, Any] = json.loads(found.stdout)
    return told, (Path(told["repository"]) / "generate" / "1" / "model.data").read_bytes()


def test_an_engine_is_calibrated_on_them_and_known_by_their_contents(model: Path, tmp_path: Path) -> None:
    (one := tmp_path / "one.txt").write_text(HARVEST)
    (same := tmp_path / "same.txt").write_text(HARVEST)
    (other := tmp_path / "other.txt").write_text(CODE)
    bundled, plain = built(model)
    own, weights = built(model, "--calibration", one)
    assert own["hash"] != bundled["hash"] and weights != plain
    report = BuildReport.read(Path(own["repository"]) / "generate" / "1")
    (source,) = [source for source in report.sources if source.name.startswith("calibration")]
    assert (source.name, source.bytes) == (f"calibration: {one}", len(HARVEST))
    assert built(model, "--calibration", same)[0] == own | {"unchanged": True, "seconds": own["seconds"]}
    assert built(model, "--calibration", other)[1] not in (plain, weights)
    one.write_text(CODE)
    assert built(model, "--calibration", one)[0]["unchanged"] is True  # as of `other`


def test_several_are_read_together(model: Path, tmp_path: Path) -> None:
    (one := tmp_path / "one.txt").write_text(HARVEST)
    (other := tmp_path / "other.txt").write_text(CODE)
    both = built(model, "--calibration", one, "--calibration", other)
    assert both[1] not in (built(model, "--calibration", one)[1], built(model, "--calibration", other)[1])


def observed(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[list[list[int]]]:
    """The texts that the float reference is given, each time that it is asked."""
    seen, real = list[list[list[int]]](), calibration.observe_inputs

    def observe(config: Mapping[str, Any], weights: Mapping[str, Any], texts: Sequence[Sequence[int]], tell: Any) -> None:
        seen.append([list(text) for text in texts])
        real(config, weights, texts, tell)  # type: ignore[arg-type]

    monkeypatch.setattr(calibration, "observe_inputs", observe)
    run()
    return seen


@pytest.mark.parametrize(("precision", "rounding"), [("w8a8", "nearest"), ("int4", GPTQ)])
def test_nothing_else_is_calibrated_on(precision: str, rounding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "own.txt").write_text(HARVEST)
    checkpoint, text = tiny("llama"), read_user_text(str(file), "--calibration")
    bundle = export(checkpoint, max_length=LENGTH)  # type: ignore[arg-type]  # a fake
    rules = find_precision(precision)
    seen = observed(monkeypatch, lambda: quantize_calibrated(bundle, checkpoint, rules, rounding, tmp_path, texts=[text]))  # type: ignore[arg-type]
    assert seen == [token_ids(checkpoint.tokenizer_json, [HARVEST])]


def test_of_long_texts_the_beginnings_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (long := tmp_path / "long.txt").write_text(HARVEST * 40)
    (short := tmp_path / "short.txt").write_text(CODE)
    checkpoint = tiny("llama")
    texts = [read_user_text(str(file), "--calibration") for file in (long, short)]
    rules = find_precision("w8a8")
    (read,) = observed(monkeypatch, lambda: calibration.calibrate(checkpoint, rules, tmp_path, texts=texts))  # type: ignore[arg-type]
    whole = token_ids(checkpoint.tokenizer_json, [HARVEST * 40, CODE])
    assert max(map(len, read)) == 512
    assert [token for piece in read for token in piece] == [*whole[0][:2048], *whole[1]]


@pytest.mark.parametrize("choices", [{"precision": "fp32"}, {"precision": "int4"}, {"target": "vllm"}, {"precision": "int8"}])
def test_where_nothing_is_calibrated_they_are_refused(choices: dict[str, str], tmp_path: Path) -> None:
    (file := tmp_path / "own.txt").write_text(HARVEST)
    with pytest.raises(BuildError, match="calibrates nothing") as caught:
        plan_of({"calibration": [str(file)], **choices})
    assert str(file) in str(caught.value.args[0])
    if "target" not in choices:
        assert caught.value.hint == (
            "leave it out, or choose --precision w8a8 (make: PRECISION=w8a8) or --rounding gptq (make: ROUNDING=gptq) "
            "with a precision of four bits"
        )
    plan_of({"calibration": [str(file)], "precision": "int4", "rounding": GPTQ})


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "has 0 characters of text; at least 200 are needed"),
        (b" \n" * 500, "has 0 characters of text"),
        (b"A few words.", "has 12 characters of text"),
        (b"caf\xe9 " * 100, "is no text in UTF-8: byte 3 fits none"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_a_sentence(model: Path, contents: bytes | None, says: str) -> None:
    if contents is not None:
        (model.parent / "own.txt").write_bytes(contents)
    found = build(model, "--calibration", model.parent / "own.txt")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.startswith(f"error: --calibration is {model.parent / 'own.txt'}, which ") and says in found.stderr
    assert found.stderr.count("\n\nhint: ") == 1 and not (model.parent / "build").exists()


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be read: Is a directory"):
        read_user_text(str(tmp_path), "--calibration")


def test_precisions_that_are_said_to_observe_are_those_that_do() -> None:
    assert {name for name, scheme in SCHEMES.items() if scheme.needs} == OBSERVED


def test_a_server_passes_them_on_and_sees_when_they_have_changed(model: Path, tmp_path: Path) -> None:
    building = Building()
    (file := tmp_path / "own.txt").write_text(HARVEST)
    said = {
        "model": str(model), "build_dir": tmp_path / "build", "calibration": (str(file),), "max_sequences": 2,
        "max_length": "48", "prefill_chunk": 16,
    }  # fmt: skip
    values = {name: setting.default for name, setting in building.settings.items()} | said
    asked = Values(building.settings, values, {name: OPTION if name in said else DEFAULT for name in values})
    assert not building.is_current(asked)
    building.build(asked)
    assert building.is_current(asked)
    file.write_text(CODE)
    assert not building.is_current(asked)


def test_every_target_that_calibrates_takes_them(tmp_path: Path) -> None:
    (file := tmp_path / "own.txt").write_text(HARVEST)
    for target in ("cpu", "cuda"):
        plan = plan_of({"target": target, "precision": "int4", "rounding": GPTQ, "calibration": [str(file)]})
        assert [text.text for text in plan.calibration] == [HARVEST]
        assert dataclasses.replace(plan, calibration=()).calibration == () and find_target(target).name == target
