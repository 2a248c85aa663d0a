"""`triune doctor` and `triune profile`. Parses, calls, prints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triune_runtime.recorded import LONGEST_S

from ..cli import files_told
from ..errors import ServerError
from ..settings import Setting, Values, with_settings
from ..stack import find_stack
from . import parsing
from .context import Context
from .listening import listen
from .plot import picture
from .registry import GROUPS, chosen, examine
from .telling import as_json, exit_code, parts_table, summary, table
from .trace import chrome

_PATIENCE_S = 600.0
Repository = Callable[[Values], Path | None]


def commands(app: typer.Typer, settings: Mapping[str, Setting], config: object, repository: Repository) -> None:
    """Add them to `app`.

    Args:
        settings: of a model, and where the server's state lies.
        repository: where that of the model lies which is asked for, built or not; None: none is named, and nothing runs.
    """

    def doctor(
        values: Values,
        only: Annotated[list[str] | None, typer.Option(help=f"Only: {', '.join(GROUPS)}.", metavar="GROUP")] = None,
        peer: Annotated[str | None, typer.Option(help="Measure the network to one that listens.", metavar="HOST:PORT")] = None,
        listen: Annotated[int | None, typer.Option(help="Be the other side of --peer, once.", min=1, max=65535)] = None,
        listen_host: Annotated[str, typer.Option(help="Address that --listen listens on; by default all.")] = "",
        ports: Annotated[str, typer.Option(help="With --listen: hold these open for the peer to try, e.g. 8000-8003.")] = "",
        seconds: Annotated[float, typer.Option(help="That each measurement may take.", min=0.2, max=60)] = 3.0,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
    ) -> None:  # fmt: skip
        """Whether this machine is fit for a model, and why a server is slow; exit code 4: something will not work."""
        with files_told():
            if listen is not None:
                if peer or only or as_json:
                    raise ServerError(
                        "--listen takes no --peer, --only or --json", "name them on the other machine, with --peer"
                    )
                _listen(listen_host or "0.0.0.0", listen, parsing.ports(ports))
                return
            if ports or listen_host:
                raise ServerError("--ports and --listen-host go with --listen", "name them where --listen is")
            groups = chosen(only or (["network"] if peer else []))
            if only and ("network" in groups) != (peer is not None):
                raise ServerError(
                    "--peer and --only network go together",
                    "--only network --peer HOST:PORT; there: triune doctor --listen PORT",
                )
            context = Context(
                repository=repository(values), target=values["target"], run_folder=values["run_folder"], seconds=seconds,
                peer=parsing.peer(peer) if peer else None, said=_said(values),
            )  # fmt: skip
            code = _tell(context, groups, as_json)
        raise typer.Exit(code)

    def profile(
        values: Values,
        seconds: Annotated[float, typer.Option(help="How long.", min=0.2, max=LONGEST_S)] = 5.0,
        output: Annotated[
            Path | None, typer.Option(help="The trace, with a picture (.svg) beside it; by default in the run folder.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
    ) -> None:  # fmt: skip
        """Record a server that runs: where its time goes, as a table, a trace (chrome-trace JSON) and a picture."""
        with files_told():
            _profile(Context(run_folder=values["run_folder"], seconds=seconds), output, as_json)

    app.command("doctor")(with_settings(doctor, settings, config))
    app.command("profile")(with_settings(profile, {"run_folder": settings["run_folder"]}, config))


def _said(values: Values) -> str:
    """What was asked for, as make takes it."""
    return " ".join(values.settings[name].said(value) for name, value in values.asked().items() if name != "run_folder")


def _tell(context: Context, groups: tuple[str, ...], told_as_json: bool) -> int:
    with Console(stderr=True).status("looking ..."):
        found = examine(context, groups)
    if told_as_json:
        print(json.dumps(as_json(found), ensure_ascii=False))
    else:
        Console().print(table(found))
        print(summary(found))
    return exit_code(found)


def _profile(context: Context, output: Path | None, as_json: bool) -> None:
    folder = context.run_folder
    if context.running is None:
        if find_stack(folder) is not None:
            raise ServerError(
                "what runs is in containers", "in its container: docker exec CONTAINER triune profile --output FILE"
            )
        raise ServerError("no server is running", "start one with `make up`")
    path = output or folder / f"trace-{time.strftime('%Y%m%d-%H%M%S')}.json"
    drawn = path.with_suffix(".svg")
    if drawn == path:
        raise ServerError(f"--output is {path}, where the picture would lie", f"name the trace: {path.with_suffix('.json')}")
    new = not path.exists()
    try:
        path.open("a").close()  # what cannot be written to is said before anything is waited for
    except OSError as error:
        raise ServerError(f"{path} cannot be written to: {error.strerror}", "name another file: --output FILE") from None
    try:
        with Console(stderr=True).status(f"recording for {context.seconds:g} s ..."):
            observed = context.observed
    except BaseException:  # ctrl-C, too
        if new:
            path.unlink(missing_ok=True)
        raise
    assert observed is not None, "a server runs"
    path.write_text(json.dumps(chrome(observed.records, observed.samples), separators=(",", ":")), "utf-8")
    drawn.write_text(picture(observed.records, observed.samples, observed.began, observed.seconds), "utf-8")
    if as_json:
        engines = {model: asdict(one) | {"idle": one.idle} for model, one in observed.engines.items()}
        print(json.dumps({"trace": str(path), "picture": str(drawn), "seconds": observed.seconds, "engines": engines}))
        return
    for model, one in observed.engines.items():
        Console().print(parts_table(model, one))
    if observed.silent:
        print(
            f"{observed.silent} more engines recorded nothing: `make logs` and `make status` say whether they hang",
            file=sys.stderr,
        )
    print(f"trace    {path} (open it at https://ui.perfetto.dev, or chrome://tracing)\npicture  {drawn}")


def _listen(host: str, port: int, ports: tuple[int, ...]) -> None:
    def told(port: int) -> None:
        print(
            f"listening on {host}, port {port}, for one peer; there: triune doctor --peer THIS_MACHINE:{port}",
            file=sys.stderr,
            flush=True,
        )

    print(f"measured by {listen(host, port, ports, _PATIENCE_S, told)}")
