"""From options to settings: reads the files that they name, checks what they say together."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from .core.checks import CHECKS
from .core.prompts import parse_prompts
from .core.slo import parse_slo
from .core.thresholds import parse_thresholds
from .core.trace import Row, parse_trace
from .core.units import parse_duration, parse_numbers
from .core.workload import Part, part_of
from .errors import LoadError
from .protocols.table import PROTOCOLS
from .settings import Load, SearchPlan, Settings, Target
from .trust import Trust

_PART_OPTIONS = (
    "kind", "input_tokens", "output_tokens", "prefix_tokens", "prefixes", "turns", "think", "temperature", "ignore_eos",
    "repeats", "repeated", "cancel", "cancel_after", "slow", "read_delay",
)  # fmt: skip
_THRESHOLD = re.compile(r"([\w.]+)\s*((?:<=|>=|<|>).+)$")


def configure(args: argparse.Namespace, command: str, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that options describe; `command` is for the record.

    Raises:
        LoadError: an option is wrong, two do not go together, or a file cannot be read.
    """
    target = _target(args, environment)
    trace = _trace(args)
    search, loads = _search(args), _loads(args, trace)
    if search is not None and not args.slo:
        raise LoadError("--search has no --slo", "say what a good request keeps, e.g. --slo first_token=500ms,between=50ms")
    counted = args.requests is not None or bool(trace)
    duration = args.duration or (None if counted else "20s")
    return Settings(
        target=target, loads=() if search else loads, search=search, trace=tuple(trace), arrivals=args.arrivals,
        burst=_at_least(args.burst, 1, "--burst"),
        duration_s=None if duration is None else parse_duration(duration, "--duration"),
        sessions=None if args.requests is None else int(_at_least(args.requests, 1, "--requests")),
        warmup_s=parse_duration(args.warmup or ("0s" if counted else "2s"), "--warmup"),
        ramp_s=parse_duration(args.ramp, "--ramp"),
        timeout_s=parse_duration(args.timeout, "--timeout"), drain_s=parse_duration(args.drain, "--drain"),
        parts=_parts(args), seed=args.seed, checks=_checks(args), stall_s=parse_duration(args.stall, "--stall"),
        free_within_s=parse_duration(args.free_within, "--free-within"), slo=parse_slo(args.slo) if args.slo else None,
        slo_share=args.slo_share, max_errors=args.max_errors, thresholds=tuple(parse_thresholds(_thresholds(args))),
        json_file=args.json, html_file=args.html, junit_file=args.junit, command=command,
        display=not args.quiet and sys.stderr.isatty(),
    )  # fmt: skip


def _target(args: argparse.Namespace, environment: Mapping[str, str]) -> Target:
    url, protocol, metrics, pids = args.url, args.protocol, args.metrics_url or "", tuple(args.pid)
    if (url is None) == (args.running is None):
        raise LoadError("expected --url or --running, one of them", "e.g. --url http://127.0.0.1:8003")
    if url is not None:
        protocol = protocol or ("chat" if url.startswith("http") else "kserve-grpc")
    else:
        protocol = protocol or "chat"
        url, metrics, pids = _running(Path(args.running), protocol, metrics, pids)
    headers = {}
    for header in args.header:
        name, found, value = header.partition(":")
        if not found or not name.strip():
            raise LoadError(f"--header is {header!r}; expected NAME:VALUE")
        headers[name.strip()] = value.strip()
    if args.api_key_env:
        if not environment.get(args.api_key_env):
            raise LoadError(f"--api-key-env names {args.api_key_env}, which is not set")
        headers["Authorization"] = f"Bearer {environment[args.api_key_env]}"
    return Target(
        url=url, protocol=protocol, model=args.model, headers=headers, extra=_object(args.extra), metrics_url=metrics,
        trust=Trust(ca_file=args.ca_file, server_name=args.server_name), pids=pids, perf_metrics=not args.no_perf_metrics,
    )  # fmt: skip


def _running(folder: Path, protocol: str, metrics: str, pids: tuple[int, ...]) -> tuple[str, str, tuple[int, ...]]:
    """URL, metrics and process of the server whose state lies in `folder`; of one in containers no process."""
    own, in_containers = folder / "triune.json", folder / "stack.json"
    try:
        state = json.loads((own if own.exists() or not in_containers.exists() else in_containers).read_text("utf-8"))
        options, pid = state["options"], int(state.get("pid", 0))
        name = PROTOCOLS[protocol].port.lower().removesuffix("_port")
        # In containers the gateways alone speak TLS.
        secure = {one: bool(options.get("tls_cert")) and (bool(pid) or one == "openai") for one in (name, "metrics")}
        metrics = metrics or f"http{'s' * secure['metrics']}://{_place(options, 'metrics')}/metrics"
        scheme = ("grpcs://" if secure[name] else "") if PROTOCOLS[protocol].adapter is None else f"http{'s' * secure[name]}://"
        url = f"{scheme}{_place(options, name)}"
    except (OSError, ValueError, KeyError, TypeError):
        raise LoadError(f"no server is running by {folder}", "start one with `make up`, or give its --url") from None
    if pid and not psutil.pid_exists(pid):
        raise LoadError(f"the server of {folder} is gone (pid {pid})", "start one with `make up`")
    return url, metrics, pids or ((pid,) if pid else ())


def _place(options: Mapping[str, Any], name: str) -> str:
    """Host and port of one of a server's ports, for a client on its machine."""
    host = options.get(f"{name}_host") or options["host"]
    return f"{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{options[f'{name}_port']}"


def _loads(args: argparse.Namespace, trace: list[Row]) -> tuple[Load, ...]:
    given = [name for name in ("streams", "rate", "trace", "search") if getattr(args, name)]
    if len(given) > 1:
        raise LoadError(f"{' and '.join(f'--{name}' for name in given)} do not go together; expected one of them")
    if trace:
        return (Load(kind="trace", value=len(trace)),)
    if args.rate:
        return tuple(Load(kind="rate", value=value) for value in parse_numbers(args.rate, "--rate", whole=False))
    return tuple(Load(kind="streams", value=value) for value in parse_numbers(args.streams or "1", "--streams", whole=True))


def _search(args: argparse.Namespace) -> SearchPlan | None:
    if not args.search:
        return None
    found = re.fullmatch(r"(rate|streams):(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", args.search)
    if found is None or not 0 < float(found[2]) <= float(found[3]):
        raise LoadError(f"--search is {args.search!r}; expected something like rate:1-64 or streams:1-64")
    return SearchPlan(kind=found[1], least=float(found[2]), most=float(found[3]))


def _trace(args: argparse.Namespace) -> list[Row]:
    if args.trace is None:
        return []
    if not args.trace_speed > 0:
        raise LoadError(f"--trace-speed is {args.trace_speed}; expected a number above 0")
    return parse_trace(_read(args.trace), unit_s=1e-3 if args.trace_unit == "ms" else 1.0, speed=args.trace_speed)


def _parts(args: argparse.Namespace) -> tuple[Part, ...]:
    """The mixture of the profile, each part with what the command line says; or one part."""
    given = {name: value for name in _PART_OPTIONS if (value := getattr(args, name)) is not None}
    tables = [dict(part) for part in args.parts] or [{}]
    parts = []
    for number, table in enumerate(tables, start=1):
        prompts = args.prompts or table.pop("prompts", None)
        table.pop("prompts", None)
        table.setdefault("name", f"part {number}" if len(tables) > 1 else "main")
        table.setdefault("kind", "chat" if PROTOCOLS[args.protocol or "chat"].chat or args.turns else "text")
        parts.append(part_of(table | given, prompts=parse_prompts(_read(prompts)) if prompts else ()))
    if args.protocol == "completions" and any(part.kind == "tools" for part in parts):
        raise LoadError("kind tools does not go with the protocol completions", "use --protocol chat")
    return tuple(parts)


def _checks(args: argparse.Namespace) -> frozenset[str]:
    if args.no_checks:
        return frozenset()
    if args.checks is None:
        return frozenset(CHECKS)
    names = frozenset(name.strip() for name in args.checks.split(","))
    if unknown := names - set(CHECKS):
        raise LoadError(f"--checks has {', '.join(sorted(unknown))}; expected {', '.join(CHECKS)}")
    return names


def _thresholds(args: argparse.Namespace) -> dict[str, Any]:
    found = dict(args.thresholds)
    for text in args.threshold:
        if (parts := _THRESHOLD.match(text)) is None:
            raise LoadError(f"--threshold is {text!r}; expected something like 'first_token_ms.p95<=500'")
        found[parts[1]] = parts[2]
    return found


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LoadError(f"--extra is {text!r}; expected a JSON object")
    return found


def _at_least(value: int, least: int, name: str) -> int:
    if value < least:
        raise LoadError(f"{name} is {value}; expected at least {least}")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise LoadError(f"{path} is not UTF-8: {error}") from None
