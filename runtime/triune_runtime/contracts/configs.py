"""The config.pbtxt of each model, from what is declared of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..options.declared import SECTIONS
from ..options.rows import Name
from .models import ENSEMBLES, ONE_RESPONSE, Ensemble
from .outputs import DESCRIBED, OUTPUTS

_STOP_TITLE = "; the first three are welcome in a request to stop another"
_PYTHON = 'backend: "python"\nmax_batch_size: 0\n'
_ONE_INSTANCE = "instance_group [ { count: 1 kind: KIND_CPU } ]\n"  # more would reorder chunks
_BETWEEN = ("token_ids", "byte_range", "request_key")  # what detokenize reads
Sections = Mapping[str, Mapping[str, Name]]


def configs() -> dict[str, str]:
    """Model -> the text of its config."""
    by_name = {one.name: one for one in ENSEMBLES}
    texts = {
        "tokenize": _tokenize("Text or chat messages -> prompt ids and options.", rows=False),
        "tokenize_2d": _tokenize(
            "Text or chat messages -> prompt ids and options. Tensors have a batch dimension, as TensorRT-LLM's clients "
            "send them.",
            rows=True,
        ),
        "generate": _generate(),
        "detokenize": _detokenize(),
    }
    texts |= {one.name: _ensemble(one) for one in ENSEMBLES}
    return texts | {one.name: _one_response(by_name[one.ensemble]) for one in ONE_RESPONSE}


def _tokenize(comment: str, *, rows: bool) -> str:
    sections = {title: {row.name: row for row in listed if row.tensor} for title, listed in SECTIONS.items()}
    outputs = [_tensor("input_ids", "INT32", (-1,)), _tensor("options", "STRING", (-1,)), "# for who asks for them alone"]
    outputs += [_tensor(name, datatype, dims) for name, (datatype, dims) in DESCRIBED.items()]
    return f"# {comment}\n{_PYTHON}{_inputs(sections, rows=rows)}{_list('output', outputs)}{_ONE_INSTANCE}"


def _generate() -> str:
    inputs = [_tensor("input_ids", "INT32", (-1,)), _tensor("options", "STRING", (-1,))]
    outputs = [_tensor(one.name, one.type, one.dims) for one in OUTPUTS.values() if one.step == "generate"]
    return (
        "# Prompt ids and options -> chunks of tokens. Batches by itself, so Triton must not.\n"
        f"{_PYTHON}model_transaction_policy {{ decoupled: true }}\n"
        f"{_list('input', inputs)}{_list('output', outputs)}{_ONE_INSTANCE}"
    )


def _detokenize() -> str:
    inputs = [_tensor(name, OUTPUTS[name].type, OUTPUTS[name].dims) for name in _BETWEEN]
    outputs = [_tensor(one.name, one.type, one.dims) for one in OUTPUTS.values() if one.step == "detokenize"]
    return (
        "# Chunks of tokens -> text. One instance and no batching keep the chunks in order.\n"
        f"{_PYTHON}{_list('input', inputs)}{_list('output', outputs)}{_ONE_INSTANCE}"
    )


def _ensemble(one: Ensemble) -> str:
    taken, given = one.taken(), one.given()
    names = {output.name: theirs for theirs, output in given.items()}
    between = {name: name for name in _BETWEEN}
    made = [output for output in OUTPUTS.values() if output.name in names or output.name in between]
    steps = [
        _step(
            one.tokenizer,
            {row.name: theirs for section in taken.values() for theirs, row in section.items()},
            {"input_ids": "prompt_ids", "options": "options"},
        ),
        _step(
            "generate",
            {"input_ids": "prompt_ids", "options": "options"},
            {output.name: names.get(output.name, output.name) for output in made if output.step == "generate"},
        ),
        _step("detokenize", between, {output.name: names[output.name] for output in made if output.step == "detokenize"}),
    ]
    outputs = [_tensor(theirs, output.type, output.dims) for theirs, output in given.items()]
    scheduled = ",\n".join(steps)
    return (
        f'# {one.comment}\nplatform: "ensemble"\nmax_batch_size: 0\n{_inputs(taken, rows=one.rows)}{_list("output", outputs)}'
        f"ensemble_scheduling {{\n  step [\n{scheduled}\n  ]\n}}\n"
    )


def _one_response(ensemble: Ensemble) -> str:
    """What several responses have stands behind each other."""
    inputs = _inputs(ensemble.taken(), rows=ensemble.rows)
    outputs = [_tensor(theirs, one.type, (-1, *one.dims[1:])) for theirs, one in ensemble.given().items()]
    return (
        f"# `{ensemble.name}` for requests with one answer, not streamed: HTTP's /infer and gRPC's ModelInfer, which no "
        f"model that streams may serve.\n{_PYTHON}{inputs}{_list('output', outputs)}{_ONE_INSTANCE}"
    )


def _inputs(sections: Sections, *, rows: bool) -> str:
    lines: list[str] = []
    for title, section in sections.items():
        if title and section:
            lines.append(f"# {title}{_STOP_TITLE if any(row.rows_only for row in section.values()) else ''}")
        for theirs, row in section.items():
            lines.append(_tensor(theirs, row.tensor, (-1, *row.dims) if rows else row.dims, optional=True))
    return _list("input", lines)


def _tensor(name: str, datatype: str, dims: Iterable[int], *, optional: bool = False) -> str:
    shape = ", ".join(map(str, dims))
    return f'{{ name: "{name}" data_type: TYPE_{datatype} dims: [ {shape} ]{" optional: true" if optional else ""} }}'


def _list(field: str, lines: list[str]) -> str:
    """A list of messages, with commas between them but not behind comments."""
    last = len(lines) - 1
    written = [f"  {line}{'' if line.startswith('#') or at == last else ','}\n" for at, line in enumerate(lines)]
    return f"{field} [\n{''.join(written)}]\n"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [f'      input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items()]
    maps += [f'      output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items()]
    return "\n".join(["    {", f'      model_name: "{model}"', "      model_version: -1", *maps, "    }"])
