"""Talks to a Triune server from a terminal: `chat`, or `complete` for one prompt. Parses arguments, no more.

Exit codes: 0 done, 1 the server refused or failed, 2 wrong arguments, 3 nothing answers, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ._chat import Chat, explain, show, summary
from ._errors import ConnectError, TriuneError
from ._http import DEFAULT_URL, Client
from ._options import ClientParams, Settings
from ._sync import SyncClient
from ._terminal import PlainTerminal, Terminal

DEFAULT_GRPC_URL = "localhost:8001"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        with _client(args) as client:
            return _chat(client, args) if args.command == "chat" else _complete(client, args)
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
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", help=f"server (default {DEFAULT_URL}; with --grpc {DEFAULT_GRPC_URL})")
    shared.add_argument("--model", default=Settings.model, help="model name (default %(default)s)")
    shared.add_argument("--max-tokens", type=int, metavar="N", help="longest answer, in tokens (default: the server's)")
    shared.add_argument("--temperature", type=float, metavar="T", help="0 is greedy (default: the server's)")
    shared.add_argument("--grpc", action="store_true", help="speak gRPC instead of HTTP")
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
    return parser


def _client(args: argparse.Namespace) -> SyncClient:
    client: SyncClient
    if args.grpc:
        # The one import inside a function: it chooses the adapter, and gRPC is an extra.
        from .grpc import GrpcClient

        client = GrpcClient(args.url or DEFAULT_GRPC_URL, model=args.model)
    else:
        client = Client(args.url or DEFAULT_URL, model=args.model)
    changes: ClientParams = {"max_tokens": args.max_tokens, "temperature": args.temperature}
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


def _complete(client: SyncClient, args: argparse.Namespace) -> int:
    prompt = args.prompt if args.prompt is not None else sys.stdin.read()
    terminal = PlainTerminal()
    completion = show(client.stream(prompt), terminal)
    if sys.stderr.isatty():
        terminal.note(summary(completion))
    return 130 if completion.finish_reason == "cancelled" else 0


if __name__ == "__main__":
    sys.exit(main())
