from typing import Any


class StatLoggerBase:
    def record(self, scheduler_stats: Any, iteration_stats: Any, *others: Any, **named: Any) -> None:
        raise NotImplementedError
