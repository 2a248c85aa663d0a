"""What processes of the server get of this one's environment: what they need, so that no secret of anybody's lies in theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping

_GIVEN = re.compile(
    "PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|TEMP|TMP|TERM|HOSTNAME|VIRTUAL_ENV|LD_LIBRARY_PATH|LD_PRELOAD|"
    "SSL_CERT_FILE|SSL_CERT_DIR|(?i:https?_proxy|no_proxy)|"
    "(?!VLLM_API_KEY)(?:LC|CUDA|NVIDIA|NV|NCCL|GLOO|UCX|VLLM|TORCH|TRT|ORT|ONNXRUNTIME|OMP|KMP|GOMP|MKL|OPENBLAS|"
    "MALLOC|OTEL|XDG|PYTHON|TRITON|TRIUNE)[A-Z0-9_]*"
)
_KEYS = re.compile("TRIUNE_API_KEYS?.*")  # those who ask for keys get them: the gateway and the front


def given(environ: Mapping[str, str], *, keys: bool) -> dict[str, str]:
    """The part of an environment that is passed on.

    Args:
        keys: whether API keys are, too.
    """
    return {name: value for name, value in environ.items() if _GIVEN.fullmatch(name) and (keys or not _KEYS.fullmatch(name))}
