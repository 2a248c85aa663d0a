"""What NVIDIA's driver says of its GPUs, by its own library. Needs no package and no root.

nvidia-ml-py has the same calls, and 8,000 lines for all others: two dozen are used here, whose layouts have not changed since
driver 510. A call that a driver or a GPU does not have is a value that is not known.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LIBRARY = "libnvidia-ml.so.1"
_MOST_LINKS = 36
_MOST_PROCESSES = 256
_NVLINK = 2  # of NVML_P2P_CAPS_INDEX_...
_SM = 1  # of NVML_CLOCK_...
_UNCORRECTED, _VOLATILE = 1, 0
_NO_PERMISSION = 4  # of NVML_ERROR_...

# Bits of why clocks are low, that say that the GPU is slower than it could be -> what is wrong.
POWER_LIMIT = 0x04
SLOWED = {
    POWER_LIMIT: "power limit", 0x08: "hardware slowdown", 0x20: "heat, by the driver", 0x40: "heat, by the hardware",
    0x80: "power brake: the power supply asks for it",
}  # fmt: skip

Uint, Ulong, Int = ctypes.c_uint, ctypes.c_ulonglong, ctypes.c_int


class _Memory(ctypes.Structure):
    _fields_ = (("total", Ulong), ("free", Ulong), ("used", Ulong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", Uint), ("memory", Uint))


class _Pci(ctypes.Structure):
    _fields_ = (
        ("legacy", ctypes.c_char * 16), ("domain", Uint), ("bus", Uint), ("device", Uint), ("id", Uint), ("subsystem", Uint),
        ("bus_id", ctypes.c_char * 32),
    )  # fmt: skip


class _Process(ctypes.Structure):
    _fields_ = (("pid", Uint), ("memory", Ulong), ("instance", Uint), ("compute", Uint))


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """A GPU now; None: not known."""

    index: int
    name: str
    bus: str = ""  # as in /sys/bus/pci/devices
    memory_bytes: int | None = None
    free_bytes: int | None = None
    pcie: tuple[int, int] | None = None  # generation, width: now
    pcie_most: tuple[int, int] | None = None  # that GPU and slot could have
    links: int = 0  # of NVLink that are up
    peers: tuple[int, ...] = ()  # indices of GPUs that NVLink reaches
    ecc: bool | None = None
    uncorrected: int | None = None  # errors of memory since the driver was loaded
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    watts: float | None = None
    watts_limit: float | None = None
    watts_default: float | None = None
    celsius: int | None = None
    clock: int | None = None  # MHz
    clock_most: int | None = None
    slowed: int | None = None  # bits, see SLOWED
    busy: float | None = None  # 0 to 1, of the last fraction of a second
    mig: bool | None = None
    persistent: bool | None = None
    processes: frozenset[int] | None = None  # ids, as this machine's first namespace has them


class Nvml:
    """The library, initialized."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    @property
    def driver(self) -> str:
        """The driver's version; empty: it is not known."""
        text = ctypes.create_string_buffer(80)
        return text.value.decode(errors="replace") if self._ask("nvmlSystemGetDriverVersion", text, len(text)) else ""

    def gpus(self) -> tuple[GpuState, ...]:
        """All GPUs, as they are now."""
        found = [(index, handle) for index, code, handle in self._handles() if code == 0]
        return tuple(self._state(index, handle, found) for index, handle in found)

    def lost(self) -> tuple[int, ...]:
        """Indices of GPUs that the driver counts and does not reach. Those that this user may not use are none of them."""
        return tuple(index for index, code, _ in self._handles() if code not in (0, _NO_PERMISSION))

    def _handles(self) -> Iterator[tuple[int, int, ctypes.c_void_p]]:
        """Index, code and handle of all GPUs that the driver counts."""
        for index in range(self._number("nvmlDeviceGetCount_v2") or 0):
            handle = ctypes.c_void_p()
            yield index, int(self._library.nvmlDeviceGetHandleByIndex_v2(Uint(index), ctypes.byref(handle))), handle

    def _state(self, index: int, gpu: ctypes.c_void_p, every: list[tuple[int, ctypes.c_void_p]]) -> GpuState:
        name, pci, memory = ctypes.create_string_buffer(96), _Pci(), _Memory()
        has_memory = self._ask("nvmlDeviceGetMemoryInfo", gpu, ctypes.byref(memory))
        self._ask("nvmlDeviceGetName", gpu, name, Uint(len(name)))
        self._ask("nvmlDeviceGetPciInfo_v3", gpu, ctypes.byref(pci))
        use = _Utilization()
        busy = use.gpu / 100 if self._ask("nvmlDeviceGetUtilizationRates", gpu, ctypes.byref(use)) else None
        ecc, mig, remapped = self._pair("EccMode", gpu), self._pair("MigMode", gpu), [Uint() for _ in range(4)]
        known = self._ask("nvmlDeviceGetRemappedRows", gpu, *map(ctypes.byref, remapped))
        persistent = self._number("nvmlDeviceGetPersistenceMode", gpu)
        return GpuState(
            index=index,
            name=name.value.decode(errors="replace") or f"GPU {index}",
            bus=_bus(pci.bus_id.decode(errors="replace")),
            memory_bytes=memory.total if has_memory else None,
            free_bytes=memory.free if has_memory else None,
            pcie=self._pcie("Curr", gpu),
            pcie_most=self._pcie("Max", gpu),
            links=sum(self._number("nvmlDeviceGetNvLinkState", gpu, Uint(link)) == 1 for link in range(_MOST_LINKS)),
            peers=tuple(other for other, handle in every if other != index and self._linked(gpu, handle)),
            ecc=None if ecc is None else ecc[0] == 1,
            uncorrected=self._number("nvmlDeviceGetTotalEccErrors", gpu, Uint(_UNCORRECTED), Uint(_VOLATILE), kind=Ulong),
            remap_pending=bool(remapped[2].value) if known else None,
            remap_failed=bool(remapped[3].value) if known else None,
            watts=_thousandth(self._number("nvmlDeviceGetPowerUsage", gpu)),
            watts_limit=_thousandth(self._number("nvmlDeviceGetEnforcedPowerLimit", gpu)),
            watts_default=_thousandth(self._number("nvmlDeviceGetPowerManagementDefaultLimit", gpu)),
            celsius=self._number("nvmlDeviceGetTemperature", gpu, Uint(0)),
            clock=self._number("nvmlDeviceGetClockInfo", gpu, Uint(_SM)),
            clock_most=self._number("nvmlDeviceGetMaxClockInfo", gpu, Uint(_SM)),
            slowed=self._number("nvmlDeviceGetCurrentClocksThrottleReasons", gpu, kind=Ulong),
            busy=busy,
            mig=None if mig is None else mig[0] == 1,
            persistent=None if persistent is None else persistent == 1,
            processes=self._processes(gpu),
        )

    def _pcie(self, which: str, gpu: ctypes.c_void_p) -> tuple[int, int] | None:
        generation = self._number(f"nvmlDeviceGet{which}PcieLinkGeneration", gpu)
        width = self._number(f"nvmlDeviceGet{which}PcieLinkWidth", gpu)
        return None if generation is None or width is None else (generation, width)

    def _linked(self, gpu: ctypes.c_void_p, other: ctypes.c_void_p) -> bool:
        return self._number("nvmlDeviceGetP2PStatus", gpu, other, Uint(_NVLINK), kind=Int) == 0

    def _pair(self, what: str, gpu: ctypes.c_void_p) -> tuple[int, int] | None:
        """Of a mode: now, and after the next reset."""
        now, later = Uint(), Uint()
        known = self._ask(f"nvmlDeviceGet{what}", gpu, ctypes.byref(now), ctypes.byref(later))
        return (now.value, later.value) if known else None

    def _processes(self, gpu: ctypes.c_void_p) -> frozenset[int] | None:
        count, found = Uint(_MOST_PROCESSES), (_Process * _MOST_PROCESSES)()
        known = self._ask("nvmlDeviceGetComputeRunningProcesses_v3", gpu, ctypes.byref(count), found)
        return frozenset(one.pid for one in found[: count.value]) if known else None

    def _number(self, call: str, *arguments: object, kind: Callable[[], ctypes._SimpleCData[int]] = Uint) -> int | None:
        value = kind()
        return value.value if self._ask(call, *arguments, ctypes.byref(value)) else None

    def _ask(self, call: str, *arguments: object) -> bool:
        """Whether it was answered."""
        function = getattr(self._library, call, None)
        return function is not None and bool(function(*arguments) == 0)


def open_nvml(library: str = LIBRARY) -> Nvml | str:
    """The library of the driver here; or why it cannot be asked."""
    try:
        loaded = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver: {library} cannot be loaded"
    code = loaded.nvmlInit_v2()
    return Nvml(loaded) if code == 0 else f"the driver does not answer, NVML error {code}"


def no_gpus() -> tuple[GpuState, ...]:
    """What a machine without that library has."""
    return ()


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _bus(said: str) -> str:
    """NVML writes eight digits of the domain, the kernel four, and lower case."""
    return said[4:].lower() if len(said) == 16 else said.lower()
