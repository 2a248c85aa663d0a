"""A stand-in for libnvidia-ml.so.1, compiled: each call gives what a test has set, or says that it does not know it."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

from triune_server.doctor.nvml import GpuState

# The numbers of the library, and what they are in a GPU where all is well.
NUMBERS = {
    "init": 0, "count": 2, "generation": 5, "generation_most": 5, "width": 16, "width_most": 16, "links": 18, "apart": 0,
    "ecc": 1, "uncorrected": 0, "pending": 0, "failed": 0, "watts": 300_500, "watts_limit": 700_000, "watts_default": 700_000,
    "celsius": 45, "clock": 1_980, "clock_most": 1_980, "slowed": 0, "busy": 37, "mig": 0, "persistent": 1,
    "processes": 1, "pid": 4_242, "knows": 1, "second": 0,
}  # fmt: skip
_SOURCE = (
    "#include <string.h>\ntypedef unsigned u; typedef unsigned long long ull;\n"
    + "".join(f"long long {name} = {value};\n" for name, value in NUMBERS.items())
    + """
#define KNOWN if (!knows) return 3
#define NUMBER(call, kind, value) int call(void *g, kind *v) { KNOWN; *v = value; return 0; }
int nvmlInit_v2(void) { return init; }
int nvmlSystemGetDriverVersion(char *t, u n) { strncpy(t, "580.95.05", n); return 0; }
int nvmlDeviceGetCount_v2(u *v) { *v = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(u i, void **g) { *g = (void *)(long)(i + 1); return i == 1 ? second : 0; }
int nvmlDeviceGetName(void *g, char *t, u n) { KNOWN; strncpy(t, "NVIDIA H200", n); return 0; }
struct pci { char legacy[16]; u domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(void *g, struct pci *p) { KNOWN; strcpy(p->bus_id, "00000000:1B:00.0"); return 0; }
int nvmlDeviceGetMemoryInfo(void *g, ull *m) {
    KNOWN; m[0] = 150000000000ull; m[1] = 140000000000ull; m[2] = 10000000000ull; return 0;
}
int nvmlDeviceGetUtilizationRates(void *g, u *v) { KNOWN; v[0] = busy; v[1] = 5; return 0; }
int nvmlDeviceGetEccMode(void *g, u *now, u *later) { KNOWN; if (ecc < 0) return 3; *now = ecc; *later = 1; return 0; }
int nvmlDeviceGetMigMode(void *g, u *now, u *later) { KNOWN; *now = mig; *later = 0; return 0; }
int nvmlDeviceGetRemappedRows(void *g, u *a, u *b, u *c, u *d) { KNOWN; *a = *b = 0; *c = pending; *d = failed; return 0; }
int nvmlDeviceGetNvLinkState(void *g, u link, u *v) { KNOWN; if (link >= 18) return 2; *v = link < links; return 0; }
int nvmlDeviceGetP2PStatus(void *g, void *h, u what, int *v) { KNOWN; *v = what == 2 ? apart : 6; return 0; }
int nvmlDeviceGetTotalEccErrors(void *g, u kind, u counter, ull *v) {
    KNOWN; *v = kind == 1 && counter == 0 ? uncorrected : 999; return 0;
}
int nvmlDeviceGetTemperature(void *g, u sensor, u *v) { KNOWN; *v = celsius; return 0; }
int nvmlDeviceGetClockInfo(void *g, u kind, u *v) { KNOWN; *v = kind == 1 ? clock : 1; return 0; }
int nvmlDeviceGetMaxClockInfo(void *g, u kind, u *v) { KNOWN; *v = kind == 1 ? clock_most : 1; return 0; }
struct process { u pid; ull memory; u instance, compute; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *g, u *n, struct process *p) {
    KNOWN; *n = processes; for (int i = 0; i < processes; i++) p[i].pid = pid + i; return 0;
}
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, u, generation) NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, u, generation_most)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, u, width) NUMBER(nvmlDeviceGetMaxPcieLinkWidth, u, width_most)
NUMBER(nvmlDeviceGetPowerUsage, u, watts) NUMBER(nvmlDeviceGetEnforcedPowerLimit, u, watts_limit)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, u, watts_default) NUMBER(nvmlDeviceGetPersistenceMode, u, persistent)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, ull, slowed)
"""
)
_SOURCE = _SOURCE.replace("long long clock =", "long long clock_now =").replace(
    "kind == 1 ? clock :", "kind == 1 ? clock_now :"
)


class FakeNvml:
    """The library, and its numbers."""

    def __init__(self, folder: Path) -> None:
        source, self.path = folder / "nvml.c", folder / "libnvidia-ml.so"
        source.write_text(_SOURCE, "utf-8")
        subprocess.run(["cc", "-shared", "-fPIC", "-fno-builtin", source, "-o", self.path], check=True)
        self._library = ctypes.CDLL(str(self.path))

    def set(self, **numbers: int) -> None:
        """Of all GPUs; the others are as in a GPU where all is well."""
        for name, value in (NUMBERS | numbers).items():
            ctypes.c_longlong.in_dll(self._library, {"clock": "clock_now"}.get(name, name)).value = value


class Driver:
    """One that answers."""

    driver = "580.95.05"

    def __init__(self, *lost: int) -> None:
        self._lost = lost

    def lost(self) -> tuple[int, ...]:
        """As `Nvml.lost`."""
        return self._lost


def gpu(index: int = 0, **more: Any) -> GpuState:
    """A GPU where all is well, but for `more`."""
    well = {
        "name": "NVIDIA H200", "bus": "0000:1b:00.0", "memory_bytes": 150_000_000_000, "free_bytes": 140_000_000_000,
        "pcie": (5, 16), "pcie_most": (5, 16), "links": 18, "peers": tuple(n for n in range(8) if n != index), "ecc": True,
        "uncorrected": 0, "remap_pending": False, "remap_failed": False, "watts": 300.5, "watts_limit": 700.0,
        "watts_default": 700.0, "celsius": 45, "clock": 1980, "clock_most": 1980, "slowed": 0, "busy": 0.37, "mig": False,
        "persistent": True, "processes": frozenset({4242}),
    }  # fmt: skip
    return GpuState(index=index, **well | more)
