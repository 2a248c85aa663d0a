"""What a hostile template may take is bounded. Run: pytest tests/runtime/test_template_limits.py"""

from __future__ import annotations

import resource
import threading
import time

import pytest

from triune_runtime.errors import RequestError
from triune_runtime.text import chat
from triune_runtime.text.chat import ChatTemplate
from triune_runtime.text.limits import Limits, OverLimit

MESSAGES = [{"role": "user", "content": "x"}]
GROWING = "{%% set ns = namespace(s='aaaaaaaaaa') %%}{%% for i in range(60) %%}%s{%% endfor %%}{{ ns.s|length }}"
LARGE = {
    "product": "{{ 'a' * 10**9 }}",
    "filter": "{{ 'a'|center(10**9) }}",
    "method": "{{ 'a'.ljust(10**9) }}",
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "json": "{{ [1, 2]|tojson(indent=10**9) }}",
    "format": "{{ '%0*d' % (10**9, 1) }}{{ '{:>1000000000}'.format(1) }}",
    "sums": GROWING % "{% set ns.s = ns.s + ns.s %}",
    "joins": GROWING % "{% set ns.s = [ns.s, ns.s]|join(ns.s) %}",
    "blocks": GROWING % "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}",
    "replacing": "{% set s = 'a' * 10000 %}{{ s|replace('a', s)|replace('a', s) }}",
    "lists": "{{ (range(100000)|list * 6000)|length }}",
}
SLOW = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "filters": "{% for i in range(99999) %}{% set x = range(99999)|map('string')|list %}{% endfor %}",
    "words": "{{ lipsum(10**7) }}",
    "sums of lists": "{{ ([[1] * 300] * 99999)|sum(start=[])|length }}",
}
REFUSED = {
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "power": "{{ 10**10**8 + 10**(10**8) }}",
    "squares": "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "round": "{{ 1|round(100000000, 'ceil') }}",
    "division": "{{ ('f' * 10000000)|int(base=16) // 3 }}",
    "links": "{{ ('a' * 100000)|urlize }}",
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_SECONDS", 0.2)
    monkeypatch.setattr(chat, "_MEMORY", 64 << 20)


@pytest.mark.parametrize("source", [*LARGE.values(), *SLOW.values()], ids=[*LARGE, *SLOW])
def test_a_template_that_takes_too_much_is_the_request_s_refusal(source: str) -> None:
    with pytest.raises(RequestError, match=r"the model's chat template takes more than (0\.2 s|64 MiB of memory)") as caught:
        ChatTemplate(source, {}).render(MESSAGES)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_an_operation_that_would_take_for_ever_is_refused_at_once(source: str) -> None:
    with pytest.raises(RequestError, match="the model's chat template refuses these messages: OverflowError"):
        ChatTemplate(source, {}).render(MESSAGES)


def test_after_a_template_that_takes_too_much_the_next_chat_is_rendered() -> None:
    template = ChatTemplate("{% if messages[0].content == 'x' %}" + SLOW["loops"] + "{% endif %}fine", {})
    before = resource.getrlimit(resource.RLIMIT_AS)
    for _ in range(2):
        with pytest.raises(RequestError):
            template.render(MESSAGES)
        assert template.render([{"role": "user", "content": "y"}]) == "fine"
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_call_that_ends_by_itself_is_never_ended_later() -> None:
    limits = Limits(0.3, 64 << 20)

    def busy(seconds: float) -> str:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        return "done"

    assert limits.run(lambda: busy(0.05)) == "done"
    assert busy(0.5) == "done"
    with pytest.raises(OverLimit, match=r"0\.3 s"):
        limits.run(lambda: busy(60))
    assert busy(0.5) == "done"


def test_an_error_of_the_call_itself_comes_through_and_its_thread_may_be_any() -> None:
    limits, found = Limits(5, 64 << 20), []

    def failing() -> None:
        raise LookupError("mine")

    def call() -> None:
        try:
            limits.run(failing)
        except LookupError as error:
            found.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["mine"] * 4


def test_the_first_call_ends_however_little_memory_it_may_take() -> None:
    """Its watcher is a thread, which needs memory itself."""
    for memory in (1, 1 << 16, 1 << 20):
        assert Limits(5.0, memory).run(lambda: 1) == 1
