"""Checks of GPUs: memory, links, errors, power, and what holds them back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from .context import Context
from .finding import Finding, bad, good, poor, unknown
from .nvml import POWER_LIMIT, SLOWED, GpuState

_KERNEL_LOG = ("dev/kmsg", "var/log/kern.log", "var/log/messages")
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([^)]*)\): (\d+)")
_FATAL_XIDS = {48, 64, 74, 79, 95, 119, 120}  # of memory, NVLink, a GPU that is off the bus, its firmware
_LOOKED_AT = "if they come back, have the GPU looked at"
_LOG_BYTES = 4 << 20
_BUSY = 0.1  # from which on a link runs as fast as it can


def has_gpus(context: Context) -> Iterator[Finding]:
    """Which there are."""
    if isinstance(context.nvml, str):
        yield _not_told(context, context.nvml)
        return
    if lost := context.nvml.lost():
        remedy = f"as root: dmesg | grep -i xid says why; start the machine anew; {_LOOKED_AT}"
        yield bad("GPUs", f"the driver does not reach number {', '.join(map(str, lost))}", remedy)
    elif not context.gpus:
        tell = bad if context.wants_gpu else unknown
        yield tell("GPUs", "the driver has none that this user may use", "in a container: docker run --gpus all")
    if not context.gpus:
        return
    for gpu in context.gpus:
        yield _memory(gpu)
    hidden = len(context.gpus) - len(context.machine.gpus)
    if context.machine.no_gpu:
        yield bad("GPUs for this process", context.machine.no_gpu, "look at CUDA_VISIBLE_DEVICES, and at the driver")
    elif hidden > 0:
        said = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
        yield good("GPUs for this process", f"{len(context.machine.gpus)} of {len(context.gpus)} ({said})")


def _not_told(context: Context, why: str) -> Finding:
    """What can be said without NVML."""
    if context.machine.gpus:
        found = f"{', '.join(gpu.name for gpu in context.machine.gpus)}; nothing more is told ({why})"
        return unknown("GPUs", found, "in a container: docker run -e NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    if context.wants_gpu:
        return bad("GPUs", f"none ({why})", "install NVIDIA's driver 580 or later; in a container: docker run --gpus all")
    return good("GPUs", f"none, and TARGET=cpu needs none ({why})")


def _memory(gpu: GpuState) -> Finding:
    subject = f"GPU {gpu.index}"
    if gpu.memory_bytes is None or gpu.free_bytes is None:
        return unknown(subject, f"{gpu.name}; its memory is not told")
    found = f"{gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB, {gpu.free_bytes / 1e9:.0f} GB free"
    if gpu.mig:
        return poor(subject, f"{found}; divided by MIG", f"an engine sees one instance; as root: {_smi(gpu)} -mig 0")
    return good(subject, found)


def links(context: Context) -> Iterator[Finding]:
    """NVLink between several, and each one's PCIe."""
    gpus = context.gpus
    if len(gpus) > 1:
        yield _nvlink(gpus)
    for gpu in gpus:
        subject = f"PCIe of GPU {gpu.index}"
        if gpu.pcie is None or gpu.pcie_most is None:
            yield unknown(subject, "the driver does not tell")
            continue
        (generation, width), (most, widest) = gpu.pcie, gpu.pcie_most
        found = f"generation {generation} of {most}, {width} of {widest} lanes"
        if width < widest:
            yield poor(subject, found, "seat the card anew, or use a slot with all lanes; loading and offloading are slower")
        elif generation < most and (gpu.busy or 0) >= _BUSY:
            yield poor(subject, f"{found} while it computes", "look at the slot's generation in the firmware's settings")
        else:
            yield good(subject, found + (" (at rest it saves power)" if generation < most else ""))


def _nvlink(gpus: Sequence[GpuState]) -> Finding:
    pairs = [(a, b) for a in gpus for b in gpus if a.index < b.index]
    apart = [(a, b) for a, b in pairs if b.index not in a.peers]
    links_up = ", ".join(dict.fromkeys(str(gpu.links) for gpu in gpus))
    if not apart:
        return good("NVLink", f"between all {len(gpus)} GPUs, {links_up} links each")
    named = ", ".join(f"{a.index} and {b.index}" for a, b in apart[:4]) + (", ..." if len(apart) > 4 else "")
    remedy = "tensor parallelism goes over PCIe there, several times slower: prefer pipeline or data parallelism between these"
    return poor("NVLink", f"none between GPUs {named} ({links_up} links each)", remedy)


def memory_errors(context: Context) -> Iterator[Finding]:
    """ECC."""
    for gpu in context.gpus:
        subject = f"ECC of GPU {gpu.index}"
        if gpu.remap_failed:
            yield bad(subject, "its memory is failing: a row could not be replaced", "have the GPU replaced")
        elif gpu.uncorrected:
            found = f"{gpu.uncorrected:,} errors that were not corrected"
            yield bad(subject, found, f"as root: {_smi(gpu)} -r; if they come back, have the GPU replaced")
        elif gpu.remap_pending:
            found = "a row of memory is to be replaced at the next reset"
            yield poor(subject, found, f"as root, when nothing uses it: {_smi(gpu)} -r")
        elif gpu.ecc is None:
            yield good(subject, "none, or the driver does not tell")
        elif not gpu.ecc:
            yield poor(subject, "off: errors of memory are not noticed", f"as root: {_smi(gpu)} -e 1, then {_smi(gpu)} -r")
        else:
            yield good(subject, "on, no uncorrected errors")


def power(context: Context) -> Iterator[Finding]:
    """Power limits, and what holds the clocks back now."""
    for gpu in context.gpus:
        if gpu.watts_limit is not None and gpu.watts_default is not None:
            subject, found = f"power limit of GPU {gpu.index}", f"{gpu.watts_limit:.0f} W"
            if not _at_default(gpu):
                found = f"{found}, {gpu.watts_default:.0f} W by default"
                yield poor(subject, found, f"as root: {_smi(gpu)} -pl {gpu.watts_default:.0f}")
            else:
                yield good(subject, found)
        yield clocks(gpu)
        if gpu.persistent is False:
            remedy = "as root: nvidia-smi -pm 1, or the service nvidia-persistenced"
            yield poor(f"driver of GPU {gpu.index}", "is unloaded when nobody uses it: starts take seconds longer", remedy)


def _at_default(gpu: GpuState) -> bool:
    """Whether it may take the power that it was made for, as far as that is known."""
    return gpu.watts_limit is None or gpu.watts_default is None or gpu.watts_limit >= gpu.watts_default * 0.99


def clocks(gpu: GpuState) -> Finding:
    """What holds its clocks back now."""
    subject = f"clocks of GPU {gpu.index}"
    if gpu.slowed is None:
        return unknown(subject, "the driver does not tell what holds them back")
    heat = "" if gpu.celsius is None else f"{gpu.celsius} °C"
    speed = "" if gpu.clock is None or gpu.clock_most is None else f"{gpu.clock} of {gpu.clock_most} MHz"
    now = f" ({told})" if (told := ", ".join(filter(None, (speed, heat)))) else ""
    reasons = [words for bit, words in SLOWED.items() if gpu.slowed & bit]
    if reasons == [SLOWED[POWER_LIMIT]] and _at_default(gpu):
        return good(subject, f"at its power limit, as under full load{now}")
    if reasons:
        cooler = "cool it: fans, air, the room; look at the power supply and its limit"
        return poor(subject, f"held back by {' and '.join(reasons)}{now}", cooler)
    return good(subject, f"not held back{now}")


def xids(context: Context) -> Iterator[Finding]:
    """Errors that the driver wrote to the kernel's log."""
    if isinstance(context.nvml, str):
        return
    log = kernel_log(context)
    if log is None:
        yield unknown("Xid errors", "this user may not read the kernel's log", "as root: dmesg | grep -i xid")
        return
    found = [(where, int(number)) for where, number in _XID.findall(log)]
    if not found:
        yield good("Xid errors", "none in the kernel's log")
        return
    numbers = ", ".join(map(str, sorted({number for _, number in found})))
    text = f"{len(found)} in the kernel's log (number {numbers}), the latest of {found[-1][0]}"
    if any(number in _FATAL_XIDS for _, number in found):
        remedy = f"as root: start the machine anew, which empties the log, too; {_LOOKED_AT}"
        yield bad("Xid errors", text, remedy)
    else:
        yield poor("Xid errors", text, "NVIDIA's list of Xid errors says what each is; 13 and 31 are mostly a program's fault")


def _smi(gpu: GpuState) -> str:
    return f"nvidia-smi -i {gpu.index}"


def kernel_log(context: Context) -> str | None:
    """The kernel's messages; None: this user may not read them."""
    for path in _KERNEL_LOG:
        try:
            descriptor = os.open(context.root / path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            return _drained(descriptor)
        finally:
            os.close(descriptor)
    return None


def _drained(descriptor: int) -> str:
    """All that can be read now; /dev/kmsg gives a message a time, and the error of a pipe for those that were overwritten."""
    parts, size = list[bytes](), 0
    while size < _LOG_BYTES:
        try:
            part = os.read(descriptor, 65536)
        except BlockingIOError:
            break
        except BrokenPipeError:
            continue
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts).decode("utf-8", "replace")


CHECKS = (has_gpus, links, memory_errors, power, xids)
