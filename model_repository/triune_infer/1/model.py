"""The model of the same name without `_infer`, answered as one response. Also serves `ensemble_infer`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from triune_runtime.errors import Overloaded, TriuneError
from triune_runtime.manifest import engine_folder
from triune_runtime.serving import pulse
from triune_runtime.serving.combining import PLACES, combined
from triune_runtime.serving.room import RoomReader
from triune_runtime.serving.tensors import request_parameters, triton_error, triton_error_again, without_floats

MOST = 256  # requests at once, each with a thread
TURNS = int(os.environ.get("TRIUNE_THREADS", "32")) - 8  # of Triton's threads for this process; some are left for answers
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """Hands each request on from a thread of its own, so that they are served together."""

    def initialize(self, args: dict[str, str]) -> None:
        self._target = args["model_name"].removesuffix("_infer")
        self._room = RoomReader(args["model_name"], engine=engine_folder(args["model_repository"]))
        self._work = pulse.begin()
        self._places, self._turns = threading.BoundedSemaphore(MOST), threading.Semaphore(TURNS)

    def execute(self, requests: list[Any]) -> None:
        with self._work:
            self._hand_on(requests)

    def _hand_on(self, requests: list[Any]) -> None:
        for request in requests:  # all that is needed of it must be taken here: it is gone when this returns
            sender = request.get_response_sender()
            try:
                self._room.check(lambda request=request: {one.name(): one.as_numpy() for one in request.inputs()})
                if not self._places.acquire(blocking=False):
                    raise Overloaded(f"{MOST} requests are here already", "send it again later")
            except Overloaded as full:
                sender.send(_failed(triton_error(full, pb_utils.TritonError)), flags=FINAL)
                continue
            try:
                inner = pb_utils.InferenceRequest(
                    request_id=request.request_id(),
                    model_name=self._target,
                    requested_output_names=[*(PLACES | set(request.requested_output_names()))],
                    inputs=[pb_utils.Tensor(tensor.name(), _unstreamed(tensor)) for tensor in request.inputs()],
                    parameters=without_floats(request_parameters(request.parameters)),
                    timeout=request.timeout(),
                )
            except TriuneError as error:
                self._places.release()
                sender.send(_failed(triton_error(error, pb_utils.TritonError)), flags=FINAL)
                continue
            threading.Thread(target=self._answer, args=(inner, sender), daemon=True).start()

    def _answer(self, inner: Any, sender: Any) -> None:
        try:
            with self._turns:
                iterator = inner.exec(decoupled=True)
                responses = list(iterator)
            # Triton's stub lets go of the iterator on a thread that does not hold the GIL. If it were the last to hold it, it
            # would free Python's objects there, and the process would crash. This is answered after that, on the same thread.
            sender.is_cancelled()
            answer = _whole(responses)
        except Exception as error:  # whatever Triton raises: without an answer its client would wait for ever
            answer = _failed(triton_error(TriuneError(str(error)), pb_utils.TritonError))
        self._places.release()
        sender.send(answer, flags=FINAL)


def _unstreamed(tensor: Any) -> NDArray[Any]:
    """A copy of an input, but nothing is to be streamed, all comes at once.

    Triton 24.10 loses an error that follows a response on its way to who called a model by `exec`, and would wait for ever.
    """
    array: NDArray[Any] = tensor.as_numpy()
    return np.zeros_like(array) if tensor.name() == "stream" else array.copy()


def _whole(responses: Iterable[Any]) -> Any:
    parts = []
    for response in responses:
        if response.has_error():
            return _failed(triton_error_again(response.error().message(), pb_utils.TritonError))
        if tensors := response.output_tensors():
            parts.append({tensor.name(): tensor.as_numpy() for tensor in tensors})
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in combined(parts).items()])


def _failed(error: Any) -> Any:
    return pb_utils.InferenceResponse(error=error)
