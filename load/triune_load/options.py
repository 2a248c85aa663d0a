"""The command line: names, defaults and help. Parses, no more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .core.arrivals import KINDS as ARRIVALS
from .core.checks import CHECKS
from .core.failures import KINDS as FAILURES
from .core.lengths import EXPECTED
from .core.workload import KINDS as PARTS
from .protocols.table import PROTOCOLS


def make_parser(prog: str = "triune-load") -> argparse.ArgumentParser:
    """The parser of a run."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Load-test a server of a language model and check every answer.",
        epilog=f"Other commands: `{prog} compare A.json B.json`, `{prog} report RESULT.json`, `{prog} self-test`. "
        "Exit codes: 0 passed; 1 wrong answers, a threshold not kept, or failures; 2 wrong arguments, or no server.",
    )
    _add_target(parser)
    _add_load(parser)
    _add_workload(parser)
    _add_checks(parser)
    _add_results(parser)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the server")
    group.add_argument(
        "--url", help="where it is: http://127.0.0.1:8003, or 127.0.0.1:8001 for gRPC; with TLS https:// or grpcs://"
    )
    group.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates to trust, in PEM: of a CA, or the server's own"
    )  # fmt: skip
    group.add_argument("--server-name", metavar="NAME", help="in its certificate, where that is not the host of --url")
    group.add_argument(
        "--running", nargs="?", const="build/run", metavar="FOLDER",
        help="what `make up` started, in containers or not: its ports, metrics and processes are found by themselves",
    )  # fmt: skip
    kinds = "; ".join(f"{name}: {info.about}" for name, info in PROTOCOLS.items())
    group.add_argument(
        "--protocol", choices=list(PROTOCOLS), help=f"{kinds} (default: chat, or kserve-grpc for a URL without http)"
    )
    group.add_argument("--model", help="its name (default: the first that the server lists; triune or triune_infer for KServe)")
    group.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    group.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable with a key, sent as a bearer token")
    group.add_argument("--extra", metavar="JSON", help="an object of more fields, or inputs, for every request")
    group.add_argument(
        "--metrics-url", metavar="URL", help="its page for Prometheus, read once a second; needed to see that it is freed"
    )
    group.add_argument("--pid", type=int, action="append", default=[], help="a process of it, weighed with all it started")
    group.add_argument("--no-perf-metrics", action="store_true", help="KServe: do not ask for the server's own times")


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the load")
    group.add_argument(
        "--streams", metavar="N,N,...", help="closed loop: so many requests at any time, one step after the other (default 1)"
    )
    group.add_argument(
        "--rate", metavar="R,R,...", help="open loop: so many requests a second, whatever became of those before"
    )
    group.add_argument("--arrivals", choices=ARRIVALS, default="poisson", help="of --rate (default %(default)s)")
    group.add_argument(
        "--burst",
        type=int,
        default=8,
        metavar="N",
        help="requests that start together, of --arrivals bursts (default %(default)s)",
    )
    group.add_argument("--trace", type=Path, metavar="FILE", help="open loop: times and lengths from CSV or JSONL")
    group.add_argument("--trace-unit", choices=("s", "ms"), default="s", help="of its numbers (default %(default)s)")
    group.add_argument("--trace-speed", type=float, default=1.0, metavar="X", help="2 plays it twice as fast")
    group.add_argument(
        "--search", metavar="KIND:LEAST-MOST", help="the highest load that keeps --slo: rate:1-64 or streams:1-64"
    )
    group.add_argument(
        "--duration", metavar="TIME", help="of a step, after its warm-up (default 20s unless --requests is given)"
    )
    group.add_argument(
        "--requests", type=int, metavar="N", help="of a step, its warm-up included; a conversation counts as one"
    )
    group.add_argument(
        "--warmup", metavar="TIME", help="what starts in it is checked, not counted (default 2s, 0s with --requests)"
    )
    group.add_argument("--ramp", default="0s", metavar="TIME", help="over which the load grows to its full height")
    group.add_argument(
        "--timeout",
        default="60s",
        metavar="TIME",
        help="longest silence before a request counts as failed (default %(default)s)",
    )
    group.add_argument(
        "--drain", default="60s", metavar="TIME", help="wait for what is under way at the end (default %(default)s)"
    )


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the workload", f"Lengths are {EXPECTED}.")
    group.add_argument(
        "--profile", type=Path, metavar="FILE", help="TOML: [run] with these options, [[part]] of a mixture, [thresholds]"
    )
    group.add_argument(
        "--kind",
        choices=PARTS,
        help="chat: through the model's template; text: continued as it is; json: held to a schema; tools",
    )
    group.add_argument("--input-tokens", metavar="LENGTHS", help="of made-up prompts, about (default 128)")
    group.add_argument("--output-tokens", metavar="LENGTHS", help="longest answer (default 64)")
    group.add_argument(
        "--prompts", type=Path, metavar="FILE", help="prompts to ask in turn: a text or a JSON object in each line"
    )
    group.add_argument("--prefix-tokens", type=int, metavar="N", help="of a text that prompts share")
    group.add_argument("--prefixes", type=int, metavar="N", help="different ones of it (default 1)")
    group.add_argument("--turns", type=int, metavar="N", help="of a conversation (default 1)")
    group.add_argument("--think", metavar="LENGTHS", help="seconds between an answer and the next turn (default 0)")
    group.add_argument("--temperature", type=float, help="of requests that are not repeats (default 0)")
    group.add_argument("--ignore-eos", action="store_true", default=None, help="every answer as long as it may be")
    group.add_argument(
        "--repeats",
        type=float,
        metavar="SHARE",
        help="of greedy requests that were asked before, to compare answers (default 0.1)",
    )
    group.add_argument("--repeated", type=int, metavar="N", help="different ones among them (default 2)")
    group.add_argument("--cancel", type=float, metavar="SHARE", help="of requests that the client leaves")
    group.add_argument("--cancel-after", metavar="LENGTHS", help="chunks (default uniform:0-16)")
    group.add_argument("--slow", type=float, metavar="SHARE", help="of clients that read slowly")
    group.add_argument("--read-delay", metavar="LENGTHS", help="seconds after every chunk of theirs (default 0.05)")
    group.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default %(default)s)")


def _add_checks(parser: argparse.ArgumentParser) -> None:
    told = "; ".join(f"{name}: {about}" for name, about in CHECKS.items())
    group = parser.add_argument_group("checks and objectives", f"Checks are {told}. Failures are {', '.join(FAILURES)}.")
    group.add_argument("--checks", metavar="NAME,...", help="only these (default: all)")
    group.add_argument("--no-checks", action="store_true", help="none, for servers that promise less")
    group.add_argument("--stall", default="30s", metavar="TIME", help="longest silence that is not wrong (default %(default)s)")
    group.add_argument("--free-within", default="10s", metavar="TIME", help="after a step (default %(default)s)")
    group.add_argument(
        "--slo",
        metavar="NAME=TIME,...",
        help="what a good request keeps: first_token=500ms,between=50ms (its mean time per token),end_to_end=5s",
    )
    group.add_argument(
        "--slo-share", type=float, default=0.95, metavar="SHARE", help="good requests that --search wants (default %(default)s)"
    )
    group.add_argument(
        "--max-errors", type=float, default=0.0, metavar="SHARE", help="failed requests that a passing run may have (default 0)"
    )
    group.add_argument(
        "--threshold", action="append", default=[], metavar="FIGURE<=N", help="first_token_ms.p95<=500, tokens_per_s>=100, ..."
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument("--html", type=Path, metavar="FILE", help="a report with plots, one file that needs no network")
    group.add_argument("--json", type=Path, metavar="FILE", help="everything, for `compare`")
    group.add_argument("--junit", type=Path, metavar="FILE", help="checks and thresholds as test cases")
    group.add_argument("--quiet", action="store_true", help="no display while it runs")


def parse_run(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    """The options of a run, those of a profile as defaults. Ends the program where they are wrong."""
    from .profile import read_profile

    parser = make_parser(prog)
    early, _ = parser.parse_known_args(arguments)
    if early.profile is not None:
        profile = read_profile(early.profile, {action.dest: action for action in parser._actions})
        parser.set_defaults(**profile.options, parts=profile.parts, thresholds=profile.thresholds)
    else:
        parser.set_defaults(parts=(), thresholds={})
    return parser.parse_args(arguments)
