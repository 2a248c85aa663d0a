"""What the checks look at. Files are read under a root folder, so that tests can show them another machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from triune_runtime.cgroup import MachineFiles
from triune_runtime.errors import ManifestError
from triune_runtime.machine import Machine, this_machine
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import DEFAULT_TARGET, TARGETS, find_target

from ..background import Health, look
from ..state import RUN_FOLDER, RunningServer, find_running
from ..view import ENGINE_FOLDER
from .memory import Memory, read_memory
from .nvml import LIBRARY, GpuState, Nvml, no_gpus, open_nvml
from .observing import Observed, observe


@dataclass(kw_only=True)
class Context:
    """A machine, a model and maybe a server."""

    repository: Path | None = None  # of the model that is to be served; it may be that it is not built
    target: str = DEFAULT_TARGET  # that is asked for; an engine that is built says its own
    said: str = ""  # what was asked for, as make takes it, e.g. MODEL=r1-nano
    run_folder: Path = RUN_FOLDER
    seconds: float = 3.0  # that a measurement may take
    peer: tuple[str, int] | None = None  # host and port of a doctor that listens on another machine
    root: Path = Path("/")
    nvml_library: str = LIBRARY
    cuda_library: str = "libcuda.so.1"
    packages: tuple[Path, ...] = ()  # where they are installed; empty: where this Python looks
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))  # that this process may run on

    def read(self, path: str) -> str:
        """The text of a file of the machine; empty: it is not there, or not to be read."""
        return MachineFiles(self.root).read(path)

    @cached_property
    def machine(self) -> Machine:
        """GPUs and packages; the driver is asked once."""
        return this_machine(self.cuda_library)

    @cached_property
    def nvml(self) -> Nvml | str:
        """The driver's own library; or why it cannot be asked."""
        return open_nvml(self.nvml_library)

    @cached_property
    def gpus(self) -> tuple[GpuState, ...]:
        """All of the machine, whichever this process may use."""
        return () if isinstance(self.nvml, str) else self.nvml.gpus()

    @property
    def first_gpu(self) -> GpuState | None:
        """The one that runs an engine, as far as CUDA_VISIBLE_DEVICES says it by a number."""
        said = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
        chosen = [gpu for gpu in self.gpus if said == str(gpu.index)]
        return next(iter(chosen or self.gpus), None)

    @cached_property
    def memory(self) -> Memory:
        """The processor's."""
        return read_memory(self)

    @property
    def engine_folder(self) -> Path | None:
        """Of the model."""
        return None if self.repository is None else self.repository / ENGINE_FOLDER

    @cached_property
    def engine(self) -> EngineManifest | ManifestError | None:
        """What engine.json says; the error of one that cannot be read; None: there is none."""
        folder = self.engine_folder
        if folder is None or not folder.exists():
            return None
        try:
            return EngineManifest.load(folder)
        except ManifestError as error:
            return error

    @property
    def manifest(self) -> EngineManifest | None:
        """That of an engine that can be read."""
        return self.engine if isinstance(self.engine, EngineManifest) else None

    @property
    def wants_gpu(self) -> bool:
        """Whether what is to be served needs one."""
        target = self.manifest.target if self.manifest else self.target
        gpu = find_target(target).gpu if target in TARGETS else "unused"
        return gpu == "needed" or (gpu == "welcome" and bool(self.gpus))

    @cached_property
    def observed(self) -> Observed | None:
        """That server, looked at for some time; None: there is none.

        Raises:
            ServerError: nothing can be recorded.
        """
        if (running := self.running) is None:
            return None
        gpus = no_gpus if isinstance(self.nvml, str) else self.nvml.gpus
        return observe(running, self.run_folder, self.seconds, gpus)

    @cached_property
    def health(self) -> Health | None:
        """Of that server; None: there is none."""
        return look(self.running) if self.running else None

    @cached_property
    def running(self) -> RunningServer | None:
        """The server that runs here."""
        return find_running(self.run_folder)
