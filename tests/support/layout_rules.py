"""Who may import what: the rules of tests/test_layout.py, as data.

A name stands for itself and all that is inside it, one that ends in * for all that begin so; of several that hold for a module,
the longest counts. Every module may import what is inside it.
"""

from __future__ import annotations

# package -> the folder that it lies in
PACKAGES = {
    "triune_builder": "builder",
    "triune_runtime": "runtime",
    "triune_server": "server",
    "triune_gateway": "gateway",
    "triune_client": "clients",
    "triune_load": "load",
    "r1_nano": "models/r1-nano",
    "triune_dashboards": "deploy/monitoring",
    "bench": ".",
    "triune_setup": "requirements",
}

# Of our own, what each may import.
ALLOWED: dict[str, set[str]] = {
    "triune_client": {"triune_client"},
    "triune_load": {"triune_load"},
    "triune_load.core": {"triune_load.core", "triune_load.errors"},
    "triune_load.protocols": {"triune_load.protocols", "triune_load.core", "triune_load.errors"},
    "triune_load.report": {"triune_load.report", "triune_load.core"},
    "triune_gateway": {"triune_gateway", "triune_client"},
    # A server holds nothing of the builder in memory, nor of what the engine needs: its supervisor runs for as long as it does.
    "triune_server": {
        "triune_server", "triune_runtime.manifest", "triune_runtime.errors", "triune_runtime.targets",
        "triune_runtime.command_line", "triune_runtime.interruption",
    },
    "triune_server.doctor": {  # it asks the machine what its targets ask
        "triune_server", "triune_runtime.manifest", "triune_runtime.errors", "triune_runtime.targets", "triune_runtime.machine",
        "triune_runtime.cgroup",
        "triune_runtime.command_line", "triune_runtime.recorded",
    },
    # Of the gateway's, what it says of the files of a certificate: a start is refused for what it would be refused for.
    "triune_server.tls": {"triune_server", "triune_gateway.certificate"},
    "triune_server.command": {
        "triune_server", "triune_builder.cli", "triune_builder.verify_published", "triune_load.__main__",
        "triune_client.__main__", "triune_runtime.command_line",
    },
    "triune_server.building": {  # `command` alone uses it
        "triune_server", "triune_runtime.manifest", "triune_runtime.interruption", "triune_builder",
    },
    "triune_runtime": {"triune_runtime"},
    "triune_builder": {
        "triune_builder", "triune_runtime.manifest", "triune_runtime.runner", "triune_runtime.targets", "triune_runtime.errors",
        "triune_runtime.machine", "triune_runtime.cgroup", "triune_runtime.command_line", "triune_runtime.interruption",
    },
    "triune_builder.inputs": {"triune_builder", "triune_runtime"},  # hashes the runtime's sources
    "triune_builder.text_trial": {"triune_builder.errors", "triune_runtime"},  # tries what the server does
    "triune_builder.checkpoint": {
        "triune_builder.checkpoint", "triune_builder.errors", "triune_builder.named_models", "triune_builder.naming",
    },
    "triune_builder.graph": {
        "triune_builder.graph", "triune_builder.checkpoint", "triune_builder.errors", "triune_runtime.manifest",
    },
    "triune_builder.quantize": {
        "triune_builder.quantize", "triune_builder.graph", "triune_builder.checkpoint", "triune_builder.errors",
    },
    "triune_builder.repository": {
        "triune_builder.repository", "triune_builder.errors", "triune_builder.fingerprint", "triune_runtime.manifest",
        "triune_runtime.errors",
    },
    # A page's plots are the load tests'; without their wheel the command says so.
    "triune_builder.planning.drawing": {"triune_builder.planning", "triune_load.report"},
    "triune_builder.comparing.drawing": {"triune_builder.comparing", "triune_load.report"},
    "triune_builder.comparing.problems": {"triune_builder.comparing", "r1_nano"},  # of the one model that has some
    # A proof shares no code with what it proves: nothing of graph (whose readers of config.json it would repeat the mistakes
    # of), quantize, targets or checkpoint.
    "triune_builder.verify": {
        "triune_builder.verify", "triune_builder.errors", "triune_builder.progress", "triune_runtime.manifest",
        "triune_runtime.runner", "triune_runtime.targets", "triune_runtime.errors",
    },
    "triune_builder.verify.reference*": {  # nor with how it is compared
        "triune_builder.verify.reference_config", "triune_builder.verify.reference_deepseek",
        "triune_builder.verify.reference_parts", "triune_builder.verify.reference_rope", "triune_builder.errors",
    },
    "triune_builder.targets.tensorrt.interpreter*": {
        "triune_builder.targets.tensorrt.interpreter", "triune_builder.targets.tensorrt.interpreter_layers",
        "triune_builder.errors",
    },
    "triune_builder.targets.tensorrt.proof": {
        "triune_builder.verify", "triune_builder.errors", "triune_builder.targets.tensorrt.interpreter",
        "triune_builder.targets.tensorrt.network_runner", "triune_runtime",
    },
    "triune_builder.targets.cuda.interpreter*": {
        "triune_builder.targets.cuda.interpreter", "triune_builder.targets.cuda.interpreter_ops",
        "triune_builder.targets.cuda.interpreter_paged", "triune_builder.errors",
    },
    "triune_builder.targets.cuda.proof": {
        "triune_builder.verify", "triune_builder.errors", "triune_builder.targets.cuda.interpreter",
        "triune_builder.targets.cuda.network_runner", "triune_runtime",
    },
    "r1_nano": {"r1_nano"},
    "triune_dashboards": {"triune_dashboards"},  # names of metrics alone: tests compare them with what a server says
    # It runs before anything is installed, and asks of the machine what the server will.
    "triune_setup": {"triune_setup", "triune_server.binaries", "triune_runtime.errors"},
    "bench": {"bench", "triune_builder", "triune_runtime", "triune_client"},
    "bench.accuracy": {"bench", "r1_nano", "triune_builder.comparing.asking"},
    "bench.gpu.ensemble": {"bench", "r1_nano"},
    "bench.gpu.plot": {"triune_load"},
    # They know of a server what its clients know: nothing that it is made of.
    "bench.chaos": {"bench.chaos", "bench.ports", "triune_client", "triune_load.core"},
    "bench.soak": {"bench.soak", "bench.chaos", "triune_client", "triune_load.core", "triune_load.report"},
}  # fmt: skip

# The runtime, from the bottom up: each may import those of the lines above its own, not its neighbours.
RUNTIME_ORDER: tuple[tuple[str, ...], ...] = (
    ("errors", "allocator", "crash", "packing", "sampling.columns", "sampling.weights"),
    ("manifest", "command_line", "interruption", "recorded"),
    ("runner", "text", "machine", "options.values"),
    ("request", "kv"),
    ("constraints", "targets"),
    ("constraints.compiling", "metrics", "options", "sampling"),
    ("contracts",),
    ("generation.sequence",),
    ("generation.step", "generation.cutting", "generation.waiting"),
    ("generation.scheduler",),
    ("generation",),
    ("drafting", "outbox", "targets.vllm"),  # the one target that hosts a generator
    ("starting", "worker"),
    ("serving",),
)

# package from outside -> the only modules of ours that may import it
ADAPTERS: dict[str, set[str]] = {
    "onnxruntime": {
        "triune_runtime.targets.cpu", "triune_runtime.targets.cuda.session", "triune_runtime.targets.cuda.device_values",
        "triune_builder.targets.cpu", "bench.attention", "bench.subjects.bare",
    },
    "cuda": {"triune_runtime.targets.device.cuda", "triune_runtime.targets.cuda.nvrtc"},
    "tensorrt": set(),  # by name, see DYNAMIC
    "tensorrt_rtx": set(),
    "onnx": {"triune_builder.targets", "bench.attention"},
    "grafana_foundation_sdk": {"triune_dashboards"},
    "onnx_ir": {"triune_builder.graph", "triune_builder.quantize", "triune_builder.targets"},
    "gguf": {"triune_builder.checkpoint.gguf_header"},
    "huggingface_hub": {"triune_builder.checkpoint.hub"},
    "llguidance": {"triune_runtime.constraints.beside", "triune_runtime.constraints.grammar"},
    "jinja2": {"triune_runtime.text"},
    "tokenizers": {
        "triune_runtime.text", "triune_builder.checkpoint.gguf_tokenizer", "triune_builder.reasoning",
        "triune_builder.verify.texts", "triune_builder.comparing.problems", "triune_builder.text_trial", "r1_nano",
        "bench.big_build", "bench.gpu.bare", "bench.gpu.reference", "bench.gpu.shapes",
    },
    "tritonclient": {
        "triune_client.grpc", "triune_load.transports.grpc", "bench.gateway", "bench.asking", "bench.gpu.clients",
    },
    "grpc": {
        "triune_client.grpc", "triune_gateway.kserve.grpc", "triune_load.transports.grpc", "bench.gateway", "bench.asking",
        "bench.gpu.clients",
    },
    "fastapi": {"triune_gateway"},
    "h11": {"triune_gateway.connections", "triune_gateway.kserve.reading"},
    "uvicorn": {"triune_gateway.connections", "triune_gateway.running"},
    "opentelemetry": {"triune_gateway.tracing", "triune_runtime.serving.tracing"},
    "vllm": {
        "triune_runtime.targets.vllm.engine", "triune_runtime.targets.vllm.guides_v1", "triune_runtime.targets.vllm.guides_v2",
        "triune_runtime.targets.vllm.host",
    },
    "torch": {"r1_nano", "bench.gpu.reference", "bench.gpu.shapes", "bench.gptq_library"},
    "transformers": {"bench.gpu.reference", "bench.gptq_library"},
    "triton_python_backend_utils": set(),
}  # fmt: skip

# module that imports by a name it computes -> why; what it imports so, no other test sees
DYNAMIC = {
    "triune_builder.targets.tensorrt.adapter": "TensorRT is one of two packages with the same API",
    "triune_builder.targets.tensorrt.classic.worker": "the same package, in another Python",
    "triune_runtime.machine": "of either of the two the version",
    "triune_runtime.targets.tensorrt.preflight": "and each of the two has two names, by how it was installed",
    "triune_builder.targets": "the one table of targets: their packages are imported where they are used",
    "triune_runtime.targets": "the same of the runtime's",
    "bench.gpu.bare": "the same, and what of ours speaks to it",
    "bench.sampler": "the modules of another checkout, under the names that they had",
    "bench.gpu.peer": "vLLM, which asks for packages of other versions than Triune's, is in no list of ours",
    "bench.worker": "a subject by its name on the command line",
}
