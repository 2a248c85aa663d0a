"""The process of vLLM: its asynchronous engine behind the lines of `protocol`. Run with the Python that has vLLM.

    python -m triune_runtime.targets.vllm.host DESCRIPTOR

Orders come on standard input; what is told goes to the descriptor. When no orders can come any more it ends, and with it all
that it has started: they are one process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from .protocol import Abort, Add, Failed, Load, Order, Piece, Ready, Refused, Start, Step, read, written
from .telling import piece_of

_LOOK_S = 0.25  # between looks at whether the engine lives
_CLOSE_S = 4.0  # for it to end in order
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031  # of Linux's fcntl


class Served:
    """One engine, and the requests that it serves. On the loop's thread."""

    def __init__(self, descriptor: int, make: Callable[[dict[str, Any], Any], Any]) -> None:
        """
        Args:
            make: an engine from vLLM's arguments, and what makes of its steps something to be told: see `engine.make`.
        """
        self._out = os.fdopen(descriptor, "wb", buffering=0)
        self._make = make
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._pieces: list[Piece] = []
        self._steps = 0
        self._loads: dict[int, Load] = {}  # of each copy of the model
        self._flushing = False
        self._serving = False
        self._llm: Any = None

    async def run(self) -> None:
        """Serve until there are no more orders, or the engine runs no more."""
        loop, orders = asyncio.get_running_loop(), asyncio.Queue[Order | None]()
        threading.Thread(target=self._listen, args=(loop, orders), name="triune-orders", daemon=True).start()
        start = await orders.get()
        assert isinstance(start, Start), "the first order says what to serve"
        try:
            self._llm = self._make(start.arguments, self._made)
            self._tell(_ready(self._llm))
        except Exception as error:
            self._tell(Failed(why=f"{type(error).__name__}: {error}"))
            return
        self._serving = True
        looking = loop.create_task(self._look())
        while (order := await orders.get()) is not None:
            self._obey(order)
        looking.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.wait_for(loop.run_in_executor(None, self._llm.shutdown), _CLOSE_S)

    def _listen(self, loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[Order | None]) -> None:
        """Read orders until there are no more. What is being loaded then need not end in order. On a thread of its own."""
        with os.fdopen(os.dup(0), "rb") as lines:  # what it starts closes `sys.stdin`, which nobody may be reading then
            for line in lines:
                loop.call_soon_threadsafe(orders.put_nowait, read(line))
        if not self._serving:
            end_all()
        loop.call_soon_threadsafe(orders.put_nowait, None)

    def _obey(self, order: Order) -> None:
        match order:
            case Add():
                self._tasks[order.key] = asyncio.get_running_loop().create_task(self._serve(order))
            case Abort():
                if (task := self._tasks.get(order.key)) is not None:
                    task.cancel()  # which vLLM tells its engine

    async def _serve(self, order: Add) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        from .engine import prompt_of, sampling_of

        key, wanted = order.key, order.params.get("logprobs")
        first = True
        try:
            params = sampling_of(order)
            async for output in self._llm.generate(prompt_of(order), params, str(key)):
                self._pieces.append(piece_of(key, output, wanted, order.params.get("prompt_logprobs"), first=first))
                first = False
                self._flush_soon()
        except EngineDeadError as error:
            self._die(error)
        except Exception as error:
            if self._llm.errored:
                self._die(error)
            self._tell(Refused(key=key, why=f"{error.__cause__ or error}"))
        finally:
            self._tasks.pop(key, None)

    def _made(self, copy: int, load: Load | None) -> None:
        """The engine has made a step."""
        self._steps += 1
        if load is not None:
            self._loads[copy] = load
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Tell of a step when all whose tokens it has made have been given them: they run before this."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        pieces, self._pieces, self._flushing = tuple(self._pieces), [], False
        loads = self._loads.values()
        load = Load(
            sum(one.running for one in loads), sum(one.waiting for one in loads),
            sum(one.kv_usage for one in loads) / max(1, len(loads)),
        )  # fmt: skip
        self._tell(Step(steps=self._steps, load=load, pieces=pieces))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._llm.errored:
                self._die(RuntimeError("its engine has ended"))

    def _die(self, error: BaseException) -> None:
        self._tell(Failed(why=f"{type(error).__name__}: {error}"))
        end_all()

    def _tell(self, told: Ready | Failed | Refused | Step) -> None:
        with contextlib.suppress(OSError):  # nobody listens: the end of the orders will say so, too
            self._out.write(written(told))


def _ready(llm: Any) -> Ready:
    import vllm

    cache = llm.vllm_config.cache_config
    return Ready(
        version=str(vllm.__version__),
        vocab_size=int(llm.model_config.get_vocab_size()),
        kv_blocks=int(cache.num_gpu_blocks or 0) or 1,
        block_tokens=int(cache.block_size),
    )


def end_all() -> None:
    """End this process and all that it has started, at once."""
    os.killpg(0, signal.SIGKILL)


def main(descriptor: int, make: Callable[[dict[str, Any], Any], Any] | None = None) -> None:
    """Serve; never returns.

    Args:
        make: see `Served`.
    """
    from .engine import make as make_engine

    os.set_inheritable(descriptor, False)
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)
    try:
        asyncio.run(Served(descriptor, make or make_engine).run())
    finally:
        end_all()


if __name__ == "__main__":
    main(int(sys.argv[1]))
