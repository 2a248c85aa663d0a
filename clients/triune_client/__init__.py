"""Client of a Triune server: text generation over HTTP, blocking and asynchronous.

The gRPC clients are in `triune_client.grpc` (extra `[grpc]`), stand-ins for tests in `triune_client.testing`.
"""

from ._async import AsyncStream
from ._errors import (
    BadRequest,
    Cancelled,
    ConnectError,
    InvalidAnswer,
    NotFound,
    Overloaded,
    ServerError,
    StatusError,
    StreamBroken,
    TimeoutError_,
    TriuneError,
)
from ._http import AsyncClient, Client
from ._options import Message, Options
from ._sync import Stream
from ._tools import ToolCall, ToolCallDelta
from ._types import Chunk, Completion, FinishReason, ModelInfo, Tokens, Usage

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "BadRequest",
    "Cancelled",
    "Chunk",
    "Client",
    "Completion",
    "ConnectError",
    "FinishReason",
    "InvalidAnswer",
    "Message",
    "ModelInfo",
    "NotFound",
    "Options",
    "Overloaded",
    "ServerError",
    "StatusError",
    "Stream",
    "StreamBroken",
    "TimeoutError_",
    "Tokens",
    "ToolCall",
    "ToolCallDelta",
    "TriuneError",
    "Usage",
    "__version__",
]
