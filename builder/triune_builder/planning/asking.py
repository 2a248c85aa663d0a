"""From what is asked to a finished plan: opens the model, chooses a split, simulates. Imports what reads architectures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import BuildError
from ..targets.vllm.checking import check_config
from ..targets.vllm.planned import options_of
from ..targets.vllm.precisions import find_precision
from . import mixtures
from .calibration import ENGINES, TRIUNE, VLLM, Engine
from .choosing import Candidate, Load
from .deciding import NETWORK, Wanted, decide
from .formats import AUTO, chosen_kv, chosen_precision
from .hardware import Gpu, find_gpu
from .replica import Limits
from .report import Report
from .simulate import Outcome, needed, pace_of, parse_slo, simulate
from .sources import Planned, of_numbers, open_model, required
from .splits import machines
from .traffic import read_traffic

_ON_OFF = {"on": True, "off": False, AUTO: None}
_MOST_GPUS = 1 << 14
_NUMBERS = ("params", "layers", "hidden", "heads", "kv_heads", "vocab", "experts", "experts_per_token")  # of a model


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of `triune plan`, by their names."""

    model: str | None = None
    params: float | None = None
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    vocab: int | None = None
    experts: int = 0
    experts_per_token: int = 0
    gpu: str = "h200"
    gpu_memory: float | None = None
    bandwidth: float | None = None
    matrix_rate: float | None = None
    link: float | None = None
    gpus: int = 1
    gpus_per_machine: int = 8
    network: float = NETWORK
    precision: str = AUTO
    kv_dtype: str = AUTO
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int | None = None
    expert_parallel: str = AUTO
    mtp: bool = False
    engine: str = AUTO
    sequences: int = 64
    prompt: int = 1024
    output: int = 1024
    step_tokens: int = 8192
    simulate: str | None = None
    requests: int = 10_000
    replicas: int | None = None
    slo: str = "first_token=2s,between=100ms"
    seed: int = 0

    def check(self) -> None:
        """
        Raises:
            BuildError: a number that none of this can be.
        """
        most = {"gpus": _MOST_GPUS, "gpus_per_machine": 1 << 10, "sequences": 1 << 16, "prompt": 1 << 24, "output": 1 << 24,
                "step_tokens": 1 << 20, "tensor_parallel": 1 << 10, "pipeline_parallel": 1 << 10, "data_parallel": _MOST_GPUS,
                "replicas": _MOST_GPUS}  # fmt: skip
        for name, limit in most.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= limit:
                raise BuildError(f"--{_option(name)} is {value:,}; it can be 1 to {limit:,}", "choose a number between these")
        if self.seed < 0:
            raise BuildError(f"--seed is {self.seed:,}; it is 0 or more", "choose e.g. --seed 0")
        if not 0 < self.network < 1e6:
            raise BuildError(f"--network is {self.network:g}; it is Gbit/s, above 0", "choose e.g. --network 400")
        for name, known in (("expert_parallel", tuple(_ON_OFF)), ("engine", (AUTO, *ENGINES))):
            if getattr(self, name) not in known:
                raise BuildError(
                    f"--{_option(name)} is {getattr(self, name)!r}; it can be {', '.join(known)}",
                    "choose one of these",
                )
        if self.model is None and self.params is None:
            raise BuildError("nothing to plan: no MODEL, and no --params", "e.g. `triune plan r1-nano`, or a folder or a file")
        if self.model is not None and (given := [name for name in _NUMBERS if getattr(self, name)]):
            said = ", ".join(f"--{_option(name)}" for name in given)
            raise BuildError(f"both {self.model} and {said} say what the model is", f"leave out {self.model}, or {said}")


def _option(name: str) -> str:
    return name.replace("_", "-")


def report_of(asked: Asked, cache: Path) -> Report:
    """The plan.

    Args:
        cache: where named models are kept.

    Raises:
        BuildError: an option that cannot be, a model that is not understood, or GPUs that cannot hold it.
    """
    asked.check()
    objectives = parse_slo(asked.slo)
    gpu = find_gpu(
        asked.gpu, memory=asked.gpu_memory, bandwidth=asked.bandwidth, rate=asked.matrix_rate, link=asked.link
    )  # fmt: skip
    model = _model(asked, cache)
    load = Load(sequences=asked.sequences, prompt=asked.prompt, output=asked.output)
    if asked.mtp and not model.geometry.predictors:
        raise BuildError(f"--mtp: {model.name} has no layers that predict further tokens", "leave it out")
    longest = model.geometry.longest
    if longest is not None and load.length > longest:
        raise BuildError(
            f"--prompt and --output are {load.length:,} tokens; the model is made for {longest:,}",
            "choose shorter ones",
        )
    wanted = _wanted(asked, model, gpu, load)
    decision = decide(wanted)
    simulated = _simulated(asked, decision.best, objectives) if asked.simulate else None
    fewest = simulated is not None and asked.replicas is None
    build = options_of(decision.best.split, wanted) if wanted.engine is VLLM and asked.model and _is_built(model) else {}
    return Report(
        model=model, best=decision.best, why=decision.why, candidates=decision.candidates, load=load, build=build,
        simulated=simulated, fewest=fewest, objectives=asked.slo,
    )  # fmt: skip


def _is_built(model: Planned) -> bool:
    """Whether it is of an architecture that is not planned alone."""
    return model.geometry.model_type != mixtures.MODEL_TYPE


def _model(asked: Asked, cache: Path) -> Planned:
    if asked.model is not None:
        return open_model(asked.model, cache)
    return of_numbers(required({name: getattr(asked, name) for name in _NUMBERS}))


def _engine(asked: Asked) -> Engine:
    if asked.engine == TRIUNE.name and asked.gpus > 1:
        raise BuildError(
            f"--engine triune on {asked.gpus} GPUs: the project's own engines run on one", "choose --engine vllm, or --gpus 1"
        )
    return (TRIUNE if asked.gpus == 1 else VLLM) if asked.engine == AUTO else ENGINES[asked.engine]


def _wanted(asked: Asked, model: Planned, gpu: Gpu, load: Load) -> Wanted:
    engine = _engine(asked)
    precision = chosen_precision(asked.precision, model.geometry)
    kv_dtype = chosen_kv(asked.kv_dtype, precision)
    if engine is VLLM:  # both raise
        name = find_precision(precision, kv_dtype)
        if _is_built(model):
            check_config(model.name, model.config, name, eight_bits=model.geometry.fp8)
    return Wanted(
        geometry=model.on(engine),
        engine=engine,
        gpu=gpu,
        gpus=asked.gpus,
        nodes=machines(asked.gpus, asked.gpus_per_machine),
        network=asked.network,
        precision=precision,
        kv_dtype=kv_dtype,
        load=load,
        degrees=(asked.tensor_parallel, asked.pipeline_parallel, asked.data_parallel),
        expert=_ON_OFF[asked.expert_parallel],
        mtp=asked.mtp,
        step_tokens=asked.step_tokens,
    )


def _simulated(asked: Asked, best: Candidate, objectives: dict[str, float]) -> Outcome:
    """The load on as many replicas as are asked for, or else on as few as keep the objectives."""
    assert best.roofline is not None and asked.simulate is not None
    plan = best.roofline.plan
    limits = Limits(
        sequences=plan.sequences, step_tokens=plan.step_tokens, chunk=plan.step_tokens, kv_tokens=plan.fullest.tokens
    )  # fmt: skip
    traffic = read_traffic(asked.simulate, requests=asked.requests, seed=asked.seed)
    pace = pace_of(best.roofline, limits)
    data = plan.split.data
    count = needed(traffic, pace, limits, objectives, data) if asked.replicas is None else asked.replicas * data
    if count is None:
        raise BuildError(
            f"no number of replicas keeps {asked.slo}: a request alone takes longer",
            "choose a looser --slo, more GPUs for a replica, or say --replicas",
        )
    return simulate(traffic, count, pace, limits, objectives)
