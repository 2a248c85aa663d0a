"""Talks to a Triune server from a terminal: `chat`, `complete` or `bench` one prompt, list `models`. Parses arguments, no more.

Exit codes: 0 done, 1 the server refused or failed, 2 wrong arguments, 3 nothing answers, 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence

from . import _bench
from ._chat import Chat, explain, show, summary
from ._errors import ConnectError, TriuneError
from ._http import DEFAULT_URL, Client
from ._options import ClientParams, Settings
from ._sync import SyncClient
from ._terminal import PlainTerminal, Terminal

KEY_VARIABLE = "TRIUNE_API_KEY"  # of the environment: the key of a server that asks for one

DEFAULT_GRPC_URL = "localhost:8001"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        with _client(args) as client:
            return _COMMANDS[args.command](client, args)
    except (TypeError, ValueError, ImportError) as error:
        parser.exit(2, f"error: {error}\n")
    except TriuneError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 3 if isinstance(error, ConnectError) else 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="triune-client", description="Talk to a Triune server")
    commands = parser.add_subparsers(dest="command", required=True)
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--url", help=f"server (default {DEFAULT_URL}; with --grpc {DEFAULT_GRPC_URL}); with TLS https:// or grpcs://"
    )
    server.add_argument("--model", default=Settings.model, help="model name (default %(default)s)")
    server.add_argument("--grpc", action="store_true", help="speak gRPC instead of HTTP")
    server.add_argument("--ca-file", metavar="FILE", help="certificates to trust, in PEM: of a CA, or the server's own")
    server.add_argument("--server-name", metavar="NAME", help="in its certificate, where that is not the host of --url")
    shared = argparse.ArgumentParser(add_help=False, parents=[server])
    shared.add_argument("--max-tokens", type=int, metavar="N", help="longest answer, in tokens (default: the server's)")
    shared.add_argument("--temperature", type=float, metavar="T", help="0 is greedy (default: the server's)")
    chat = commands.add_parser("chat", parents=[shared], help="talk to the model, turn by turn")
    chat.add_argument("--system", metavar="TEXT", help="system message")
    chat.add_argument(
        "--think",
        action=argparse.BooleanOptionalAction,
        help="have the model think before it answers, or not (default: its own)",
    )
    chat.add_argument("--thinking-budget", type=int, metavar="N", help="most tokens of thinking (default: no limit)")
    complete = commands.add_parser("complete", parents=[shared], help="complete one prompt and exit")
    complete.add_argument("prompt", nargs="?", help="raw prompt (default: read from stdin)")
    bench = commands.add_parser("bench", parents=[shared], help="measure the server with one prompt")
    bench.add_argument("prompt", nargs="?", help="raw prompt (default: read from stdin)")
    bench.add_argument("--answers", type=int, default=8, metavar="N", help="how many answers to ask for (default %(default)s)")
    bench.add_argument("--streams", type=int, default=1, metavar="N", help="how many of them at a time (default %(default)s)")
    bench.add_argument("--ignore-eos", action="store_true", help="have every answer be max-tokens long")
    bench.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    models = commands.add_parser("models", parents=[server], help="list the models that the server knows")
    models.add_argument("--json", action="store_true", help="a JSON list instead of lines")
    return parser


def _client(args: argparse.Namespace) -> SyncClient:
    client: SyncClient
    key = os.environ.get(KEY_VARIABLE)  # not an option: those other users of a machine can read
    headers = {"authorization": f"Bearer {key}"} if key else {}
    trust = {"ca_file": args.ca_file, "server_name": args.server_name}
    if args.grpc:
        # The one import inside a function: it chooses the adapter, and gRPC is an extra.
        from .grpc import GrpcClient

        client = GrpcClient(args.url or DEFAULT_GRPC_URL, model=args.model, headers=headers, **trust)
    else:
        client = Client(args.url or DEFAULT_URL, model=args.model, headers=headers, **trust)
    if args.command == "models":
        return client
    changes: ClientParams = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    if args.command == "bench" and args.ignore_eos:
        changes |= {"ignore_eos": True}
    if args.command == "chat":
        changes |= {"enable_thinking": args.think, "thinking_budget": args.thinking_budget}
    client.settings = client.settings.derive(changes)
    return client


def _terminal() -> Terminal:
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        return PlainTerminal()
    try:
        from ._rich_terminal import RichTerminal
    except ImportError:
        terminal = PlainTerminal()
        terminal.note('for colours and a spinner: pip install "triune-client[chat]"')
        return terminal
    return RichTerminal()


def _chat(client: SyncClient, args: argparse.Namespace) -> int:
    terminal = _terminal()
    if not client.ready():
        client.models()  # says why, if nothing answers
        terminal.note(f"the server answers, but its model {args.model!r} is not ready")
    Chat(client, terminal, system=args.system).run()
    return 0


def _prompt(args: argparse.Namespace) -> str:
    return args.prompt if args.prompt is not None else sys.stdin.read()


def _complete(client: SyncClient, args: argparse.Namespace) -> int:
    prompt = _prompt(args)
    terminal = PlainTerminal()
    completion = show(client.stream(prompt), terminal)
    if sys.stderr.isatty():
        terminal.note(summary(completion))
    return 130 if completion.finish_reason == "cancelled" else 0


def _measure(client: SyncClient, args: argparse.Namespace) -> int:
    figures = _bench.run(client, _prompt(args), answers=args.answers, streams=args.streams)
    print(json.dumps(dataclasses.asdict(figures)) if args.json else _bench.table(figures))
    return 0


def _models(client: SyncClient, args: argparse.Namespace) -> int:
    models = client.models()
    if args.json:
        print(json.dumps([dataclasses.asdict(model) for model in models]))
        return 0
    width = max((len(model.name) for model in models), default=0)
    for model in models:
        details = " ".join(filter(None, (model.state or "not loaded", model.reason)))
        print(f"{model.name:<{width}}  {details}")
    return 0


_COMMANDS: dict[str, Callable[[SyncClient, argparse.Namespace], int]] = {
    "chat": _chat, "complete": _complete, "bench": _measure, "models": _models,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
