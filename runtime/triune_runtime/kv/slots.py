"""KV memory in slots: a stretch of fixed length for each sequence. Integers and hashes only; no sequence, no tensor.

Where slots share (`Sharing`), a free one keeps what it held. A prompt that begins as one whose KV lies in a slot takes that
slot as it is, or has the beginning copied into another: that costs a hundredth of computing it.

What is shared must have the bits that the prompt would have computed itself. A prompt's tokens are run together, and the sums
in its attention do not depend on how many they are, down to some number; a token that is run alone goes through other kernels.
So shared are prompts alone, never answers, and only what was run in parts of at least `unit` tokens; and a beginning is as long
as leaves a part of `unit` tokens to be run behind it, up to where the prompt would have been cut anyway. The token after which
the answer begins is always run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..manifest import EngineManifest
from ..runner import Copy, Order
from .names import Coming, Names, Prompt
from .slot_prefixes import SlotPrefixes
from .slot_room import place
from .store import Held, KvUsage
from .windows import Window

_KEPT_S = 300.0  # how long what lies in a free slot waits for a prompt that begins so


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What of a slot others may have. A batch of decoding sequences may then begin at any slot."""

    unit: int  # tokens; see the module
    chunk: int  # prompts are cut at multiples of this
    windows: tuple[Window, ...] = ()  # of buffers that drop what is older

    @classmethod
    def of(cls, manifest: EngineManifest, unit: int) -> Sharing | None:
        """Of an engine; None: nothing can be shared.

        Args:
            unit: of an engine whose buffers drop nothing. The others' lie otherwise after another cut, so theirs is a chunk.
        """
        limits = manifest.limits
        if limits.step_tokens != limits.prefill_chunk:  # where prompts are cut depends on what else there is to do
            return None
        every = {Window(c.window, c.positions(limits.max_length)) for c in manifest.cache if c.window is not None}
        windows = tuple(sorted(window for window in every if window.positions < limits.max_length))
        chunk = limits.prefill_chunk
        return cls(unit=chunk if windows else min(unit, chunk), chunk=chunk, windows=windows)


@dataclass(eq=False, slots=True)
class _Slot:
    """What is known of a slot's content."""

    salt: bytes | None = None
    whole: int = 0  # its first tokens, which lie there as a prompt's own run leaves them
    open: bool = False  # what is run next may follow these
    reach: int = 0  # tokens that were there at most
    since: float | None = None  # when it was first seen free
    needed: int | None = None  # what of it was told to be of use when it was idle


class SlotStore:
    """See `KvStore`. A slot has room for the longest sequence from the beginning, so nobody is ever sent away again.

    Slots 0 to size - 1, each free or held. Decoding sequences are brought together: to the first slots, or where slots share,
    to neighbouring ones. There, a slot with nothing of use is taken first, then the one that was used longest ago.
    """

    def __init__(self, slots: int, length: int, sharing: Sharing | None = None) -> None:
        """
        Args:
            length: tokens of a slot.
            sharing: None: slots share nothing.
        """
        assert slots > 0, f"a store of {slots} slots"
        self.shares = sharing is not None
        self._sharing = sharing or Sharing(unit=length, chunk=length)
        self._slots = [_Slot() for _ in range(slots)]
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(slots))  # where slots share, the next to be taken first
        self._length = length
        self._names, self._coming = Names(self._sharing.unit), Coming()
        self._prefixes = SlotPrefixes(slots)
        self._orders: list[Copy] = []

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def longest(self) -> int:
        return self._length

    def longest_prompt(self, members: int) -> int:
        """See `KvStore.longest_prompt`."""
        return self._length

    def admits(self, prompt: Prompt, members: int) -> int | None:
        """See `KvStore.admits`."""
        return self._find(prompt)[1] if len(self._free) >= members else None

    def comes(self, prompt: Prompt) -> bool:
        """See `KvStore.comes`."""
        sharing = self._sharing
        if prompt.salt is None or not self.shares or sharing.windows or len(prompt) <= sharing.unit:
            return False
        names, known = prompt.named(self._names), self._find(prompt)[1] // sharing.unit
        lengths = (number * sharing.unit for number in range(known + 1, len(names) + 1) if names[number - 1] in self._coming)
        return any(self._leaves_a_part(length, len(prompt)) for length in lengths)

    def admit(self, prompt: Prompt, members: int) -> Held:
        """See `KvStore.admit`."""
        assert len(self._free) >= members, f"all {self.slots} slots are held" if not self._free else "too few slots are free"
        source, cached = self._find(prompt)
        stays = bool(cached) and source in self._free and self._takes(source, cached, members)
        if cached and not stays and source in self._free:
            self._free.move_to_end(source)  # it is used
            self._slots[source].since = None
        first = self._hold(source if stays else None)
        if stays:
            self._prefixes.cut(first, cached // self._sharing.unit)
        else:
            self._prefixes.cut(first)
            if cached:
                self._orders.append(Copy(source, first, cached))
        self._slots[first] = _Slot(prompt.salt, cached, open=True, reach=cached)
        if prompt.salt is not None and self.shares:
            self._coming.begin(first, prompt.named(self._names), cached // self._sharing.unit)
        slots = (first, *(self._hold(None) for _ in range(members - 1)))
        for slot in slots[1:]:
            self._prefixes.cut(slot)
            self._slots[slot] = _Slot()
        return Held(slots, cached, self._length, members - stays, int(bool(cached)))

    def extend(self, slot: int, length: int) -> int:
        """See `KvStore.extend`: a slot has all its room from the beginning."""
        return self._length

    def fork(self, slot: int, targets: Sequence[int], length: int) -> int:
        """See `KvStore.fork`: by copies."""
        self._orders += [Copy(slot, target, length) for target in targets]
        return self._length

    def settle(self, slot: int, tokens: Sequence[int], length: int, *, together: bool) -> None:
        """See `KvStore.settle`."""
        known, unit = self._slots[slot], self._sharing.unit
        self._coming.come(slot, length // unit)
        known.reach = max(known.reach, length)
        if known.salt is None or not self.shares or length <= known.whole or not known.open:
            return
        known.open = together and length - known.whole >= unit
        if known.open:
            known.whole = length
            names = self._prefixes.of(slot)
            self._prefixes.add(slot, self._names.further(names, known.salt, tokens, length // unit * unit))

    def release(self, slot: int, *, keep: bool = True) -> None:
        """See `KvStore.release`."""
        assert slot not in self._free, f"slot {slot} is released but nobody holds it"
        self._coming.end(slot)
        for at in range(len(self._orders) - 1, -1, -1):  # copies that nobody needs any more
            if self._orders[at].target == slot and all(later.source != slot for later in self._orders[at:]):
                del self._orders[at]
                keep = False
        if not keep:
            self._prefixes.cut(slot)
        self._set_free(slot, useful=bool(self._prefixes.of(slot)))

    def forget(self) -> None:
        """See `KvStore.forget`."""
        self._coming.clear()
        self._prefixes.clear()
        for known in self._slots:
            known.open = False

    def gaps(self, decoding: Iterable[int]) -> bool:
        """See `KvStore.gaps`."""
        return bool(self._moves(set(decoding)))

    def arrange(self, decoding: Mapping[int, int]) -> dict[int, int]:
        """See `KvStore.arrange`: by the fewest copies that make them neighbours. Every target was free."""
        moves = self._moves(decoding.keys())
        for source, target in moves.items():
            assert source not in self._free and target in self._free, f"slot {source} cannot move to {target}"
            del self._free[target]
            self._orders.append(Copy(source, target, decoding[source]))
            known = self._slots[source]
            self._prefixes.cut(target)
            self._prefixes.add(target, self._prefixes.of(source))
            self._slots[target] = _Slot(known.salt, known.whole, known.open, decoding[source])
            known.reach = max(known.reach, decoding[source])
            self._set_free(source, useful=False)  # what lies there lies in the other one too
        return moves

    def orders(self) -> tuple[Order, ...]:
        """See `KvStore.orders`."""
        if not self._orders:
            return ()
        orders, self._orders = tuple(self._orders), []
        return orders

    def idle(self, now: float) -> list[tuple[int, int]]:
        """See `KvStore.idle`: what no prompt could find is told soon, the rest when none has found it for some minutes."""
        if self._orders:  # copies that are still to be made may need it
            return []
        found = []
        for slot in self._free:
            known = self._slots[slot]
            if known.since is None:
                known.since = now
                continue
            if now - known.since >= _KEPT_S:
                self._prefixes.cut(slot)
            needed = len(self._prefixes.of(slot)) * self._sharing.unit
            if known.needed is None or needed < known.needed:
                known.needed = needed
                found.append((slot, needed))
        return found

    def usage(self) -> KvUsage:
        """See `KvStore.usage`."""
        return KvUsage(blocks=self.slots, used=self.slots - len(self._free), block_tokens=self._length)

    def check(self, holders: Sequence[int]) -> None:
        """See `KvStore.check`."""
        held = [slot for slot in range(self.slots) if slot not in self._free]
        assert sorted(holders) == held, f"slots {held} are held, their holders say {sorted(holders)}"
        self._prefixes.check()
        for slot, known in enumerate(self._slots):
            assert len(self._prefixes.of(slot)) * self._sharing.unit <= max(known.whole, known.reach), f"slot {slot} has less"

    def _find(self, prompt: Prompt) -> tuple[int, int]:
        """The slot with the longest beginning of `prompt` that can be had, and how many tokens that is; 0: there is none."""
        unit = self._sharing.unit
        if prompt.salt is None or not self.shares or len(prompt) <= unit:
            return -1, 0
        names = prompt.named(self._names)
        for count in range(self._prefixes.longest(names), 0, -1):
            length = count * unit
            if self._leaves_a_part(length, len(prompt)):
                having = [slot for slot in self._prefixes.having(names[count - 1]) if self._keeps(slot, length)]
                if having:  # free ones first, then those that have little else
                    return min(having, key=lambda slot: (slot not in self._free, len(self._prefixes.of(slot)))), length
        return -1, 0

    def _leaves_a_part(self, length: int, whole: int) -> bool:
        """Whether what follows the first `length` tokens of a prompt is run as it would be after a run of them all."""
        chunk = self._sharing.chunk
        end = min(whole, (length // chunk + 1) * chunk)
        return length < whole and (length % chunk == 0 or end - length >= self._sharing.unit)

    def _keeps(self, slot: int, length: int) -> bool:
        """Whether a slot's buffers have not dropped what its first `length` tokens need."""
        windows = self._sharing.windows
        if windows and slot not in self._free:  # how far it has come is not known
            return False
        return all(window.keeps(self._slots[slot].reach, length) for window in windows)

    def _takes(self, source: int, cached: int, members: int) -> bool:
        """Whether a prompt's sequence takes the free slot where its beginning lies, which loses what else lies there."""
        if len(self._free) == members or source == next(iter(self._free)):
            return True
        return len(self._prefixes.of(source)) - cached // self._sharing.unit <= 1

    def _hold(self, slot: int | None) -> int:
        """Take a free slot: this one, or the next to be taken."""
        if slot is None:
            slot = next(iter(self._free)) if self.shares else min(self._free)
        del self._free[slot]
        return slot

    def _set_free(self, slot: int, *, useful: bool) -> None:
        self._free[slot] = None
        self._slots[slot].since = self._slots[slot].needed = None
        if not useful:
            self._free.move_to_end(slot, last=False)

    def _moves(self, decoding: Collection[int]) -> dict[int, int]:
        """Slot -> where its sequence is to go."""
        wanted = place(decoding, self.slots, list(self._free)) if self.shares else range(len(decoding))
        outside = sorted(slot for slot in decoding if slot not in wanted)
        holes = (slot for slot in wanted if slot not in decoding) if outside else ()
        return dict(zip(outside, holes, strict=True))
