"""Hands the runtime's counts to the server's own /metrics. An update there crosses processes: they go in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..metrics import FAMILIES, Labels, Metrics, Update, Usage

LOG = logging.getLogger(__name__)
_USAGE_S = 5.0  # between looks at the process and its disks


class MetricFamilies(Protocol):
    """`triton_python_backend_utils.MetricFamily`: the class and its three kinds."""

    COUNTER: Any
    GAUGE: Any
    HISTOGRAM: Any

    def __call__(self, *, name: str, description: str, kind: Any) -> Any: ...


class MetricsBridge:
    """Drains `metrics` every `interval_s` seconds on a thread of its own until closed.

    Args:
        model: which every series names in its label `model_name`, as vLLM's do.
        usage: what the process takes of the machine now.
    """

    def __init__(
        self, metrics: Metrics, families: MetricFamilies, model: str, usage: Callable[[], Usage], interval_s: float = 0.5
    ) -> None:
        kinds = {"counter": families.COUNTER, "gauge": families.GAUGE, "histogram": families.HISTOGRAM}
        self._metrics = metrics
        self._interval_s = interval_s
        self._usage, self._looked_at = usage, -_USAGE_S
        self._model = model
        self._families = {f.name: families(name=f.name, description=f.help, kind=kinds[f.kind]) for f in FAMILIES.values()}
        self._cells: dict[tuple[str, Labels], Any] = {}
        self._sent: dict[tuple[str, Labels], float] = {}
        self._closed = threading.Event()
        for family in FAMILIES.values():
            if family.kind != "gauge" and "_total" not in family.name:
                self._cell(family.name, ())  # histograms show from the start
        self._push()
        self._thread = threading.Thread(target=self._push_until_closed, name="triune-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Push what is left and stop."""
        self._closed.set()
        self._thread.join()

    def _push_until_closed(self) -> None:
        while not self._closed.wait(self._interval_s):
            self._push()
        self._push()

    def _push(self) -> None:
        try:
            if (now := time.monotonic()) - self._looked_at >= _USAGE_S:
                self._looked_at = now
                self._metrics.process(self._usage())
            for update in self._metrics.drain():
                self._apply(update)
        except Exception:  # counting must never stop the serving
            LOG.exception("metrics could not be handed to the server")

    def _apply(self, update: Update) -> None:
        kind, key = FAMILIES[update.family].kind, (update.family, update.labels)
        cell = self._cell(*key)
        if kind == "counter":
            cell.increment(update.value)
        elif kind == "histogram":
            for value in update.observations:
                cell.observe(value)
        elif self._sent.get(key) != update.value:
            self._sent[key] = update.value
            cell.set(update.value)

    def _cell(self, family: str, labels: Labels) -> Any:
        key = family, labels
        if key not in self._cells:
            buckets = FAMILIES[family].buckets
            extra = {"buckets": list(buckets)} if buckets else {}
            self._cells[key] = self._families[family].Metric(labels={"model_name": self._model, **dict(labels)}, **extra)
        return self._cells[key]
