"""Graphs lowered for CUDA, run by ONNX Runtime on a real GPU, give the logits that the interpreter found for them.

Run: pytest tests/gpu/test_cuda_graphs.py -s. Where the builder's packages are not installed, name the folder that
`python tests/gpu/cuda_cases.py FOLDER` wrote elsewhere: TRIUNE_CUDA_CASES=FOLDER. It imports PyTorch for memory on the GPU.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.gpu
TOLERANCE = {"fp16": 0.02, "bf16": 0.08, "int4": 0.03, "fp16-fp8kv": 0.08, "bf16-fp8kv": 0.1}  # of the largest logit
ONNX_TYPES = {"float16": 10, "bfloat16": 16, "float8_e4m3fn": 17, "float32": 1, "int64": 7, "int32": 6}
FOREIGN = 100.0  # what memory holds that nobody wrote


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = Path(os.environ.get("TRIUNE_CUDA_CASES") or tmp_path_factory.mktemp("cases"))
    if not any(folder.glob("*/case.json")):
        from gpu import cuda_cases

        cuda_cases.write_all(folder)
    return {json.loads(path.read_text())["name"]: path.parent for path in sorted(folder.glob("*/case.json"))}


class OnGpu:
    """A graph in ONNX Runtime with its cache in memory of the GPU."""

    def __init__(self, folder: Path, case: dict[str, Any]) -> None:
        import torch  # first: it brings the libraries that ONNX Runtime's provider looks for

        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        import onnxruntime

        self._torch = torch
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # nothing may run on the CPU
        provider = ("CUDAExecutionProvider", {"use_tf32": "0"})
        self._session = onnxruntime.InferenceSession(str(folder / case["graph"]), options, providers=[provider])
        self._cache = {
            name: torch.full(tuple(pool["shape"]), FOREIGN, device="cuda").to(getattr(torch, pool["dtype"]))
            for name, pool in case["cache"].items()
        }

    def run(self, feeds: dict[str, Any], shape: tuple[int, ...]) -> Any:
        binding, held = self._session.io_binding(), []
        for name, array in feeds.items():
            if name == "attention_metadata":
                binding.bind_cpu_input(name, array)
                continue
            held.append(self._torch.from_numpy(array).cuda())
            self._bind(binding.bind_input, name, held[-1])
        for name, pool in self._cache.items():
            self._bind(binding.bind_input, name, pool)
        logits = self._torch.empty(shape, dtype=self._torch.float32, device="cuda")
        self._bind(binding.bind_output, "logits", logits)
        self._torch.cuda.synchronize()
        self._session.run_with_iobinding(binding)
        return logits.cpu().numpy()

    def untouched(self) -> bool:
        """Whether the blocks that no table names hold what they held."""
        return all(bool((pool[[0, -1]].float() == pool.new_full((), FOREIGN).float()).all()) if pool.element_size() > 1
                   else bool((pool[0].float() == pool[-1].float()).all()) for pool in self._cache.values())  # fmt: skip

    def _bind(self, bind: Any, name: str, tensor: Any) -> None:
        kind = ONNX_TYPES[str(tensor.dtype).removeprefix("torch.")]
        bind(name, "cuda", 0, kind, list(tensor.shape), tensor.data_ptr())


NAMES = (
    "llama fp16", "llama bf16", "llama biases fp16", "qwen2 bf16", "qwen2 windows bf16", "qwen3 fp16", "qwen3 bf16",
    "mistral short window fp16", "mistral long window fp16", "deepseek_v3 fp16", "deepseek_v3 bf16",
    "deepseek_v3 groups fp16", "deepseek_v3 fp8 cache", "llama int4", "deepseek_v3 int4", "qwen2 fp8 cache fp16",
    "qwen2 fp8 cache bf16",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_gives_the_interpreters_logits(name: str, cases: dict[str, Path]) -> None:
    folder = cases[name]
    case = json.loads((folder / "case.json").read_text())
    engine = OnGpu(folder, case)
    worst = []
    with np.load(folder / "steps.npz") as arrays:
        for number in range(case["steps"]):
            step = {key.split(".", 1)[1]: arrays[key] for key in arrays.files if key.startswith(f"{number}.")}
            expected = step.pop("logits")
            found = engine.run(step, expected.shape)
            rows = np.abs(found - expected).max(-1) / np.abs(expected).max(-1)
            # A rounding may choose another expert for a token, or another eight-bit float.
            some_jump = "groups" in name or "fp8" in name
            worst.append(float(np.median(rows) if some_jump else rows.max()))
    print(f"{name}: relative differences of the steps {', '.join(f'{w:.2g}' for w in worst)}")
    assert max(worst) < TOLERANCE[case["precision"]]
    assert engine.untouched()
