"""What a hostile template may take is bounded, whatever it does.

Run: pytest tests/runtime/test_template_limits.py
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from triune_runtime.errors import ManifestError, Overloaded, RequestError
from triune_runtime.text import renderer
from triune_runtime.text.chat import ChatTemplate
from triune_runtime.text.renderer import Renderer

MESSAGES = [{"role": "user", "content": "x"}]
GROWING = "{%% set ns = namespace(s='aaaaaaaaaa') %%}{%% for i in range(60) %%}%s{%% endfor %%}{{ ns.s|length }}"
# Of small values, made of themselves again and again: 2^40 pieces, if anybody looks at each.
DEEPER = "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% set ns.t = (ns.t, ns.t) %}"
NESTED = "{% set ns = namespace(a=[1], b=[1], t=(1,)) %}{% for i in range(40) %}" + DEEPER + "{% endfor %}"
LONG = "{% set s = 'a' * 10**7 %}"
TOO_MUCH = {
    # of memory
    "product": "{{ 'a' * 10**9 }}",
    "product of lists": "{{ (range(100000)|list * 6000)|length }}",
    "center": "{{ 'a'|center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "rjust": "{{ 'a'.rjust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "indent of JSON": "{{ [1, 2]|tojson(indent=10**9) }}",
    "width": "{{ '%0*d' % (10**9, 1) }}",
    "precision": "{{ '%.*f' % (10**9, 1.5) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "filter format": "{{ '%1000000000d'|format(1) }}",
    "sums": GROWING % "{% set ns.s = ns.s + ns.s %}",
    "joins": GROWING % "{% set ns.s = [ns.s, ns.s]|join(ns.s) %}",
    "blocks": GROWING % "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}",
    "replace": "{% set s = 'a' * 10000 %}{{ s|replace('a', s)|replace('a', s) }}",
    "escapes": "{{ ('<' * 10**8)|escape }}",
    "escapes of URLs": "{{ ('<' * 10**8)|urlencode }}",
    "text of lists": NESTED + "{{ ns.a|string|length }}",
    "JSON of lists": NESTED + "{{ ns.a|tojson|length }}",
    "pretty print": NESTED + "{{ ns.a|pprint|length }}",
    # of time, in loops
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "filters": "{% for i in range(99999) %}{% set x = range(99999)|map('string')|list %}{% endfor %}",
    "words": "{{ lipsum(10**7) }}",
    "slices": "{{ [1]|slice(10**9)|list|length }}",
    # of time, in one operation
    "power": "{{ 10**(10**8) }}",
    "power of a power": "{{ (10**(10**7) * 10**(10**7)) % 7 }}",
    "squares": "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "round": "{{ 1|round(100000000, 'ceil') }}",
    "division": "{{ ('f' * 10**7)|int(base=16) // ('e' * 5 * 10**6)|int(base=16) }}",
    "links": "{{ (('(' * 20000 ~ ')' * 20000) * 2)|urlize }}",
    "words in lines": "{{ ('a ' * 10**7)|wordwrap(1) }}",
    "sums of lists": "{{ ([[1] * 300] * 99999)|sum(start=[])|length }}",
    "sort": LONG + "{{ ([s + 'b'] * 99999 + [s + 'a'] * 99999)|sort|length }}",
    "unique": LONG + "{{ range(99999)|map('string')|map('replace', '1', s)|unique|list|length }}",
    "largest": LONG + "{% set t = [s + 'b', s + 'a'] * 99999 %}{{ t|max|length }}",
    "search": LONG + "{{ ([s + 'b'] * 99999).count(s + 'a') }}",
    "membership": LONG + "{{ (s + 'a') in [s + 'b'] * 99999 }}",
    "comparison": NESTED + "{{ ns.a == ns.b }}",
    "order": NESTED + "{{ ns.a < ns.b }}",
    "a place in a list": NESTED + "{{ [ns.a].index(ns.b) }}",
    "a key": NESTED + "{{ {ns.t: 1}|length }}",
    "groups": NESTED + "{{ [{'k': ns.a}, {'k': ns.b}]|groupby('k')|list|length }}",
}  # fmt: skip


@pytest.fixture(scope="module")
def small() -> Iterator[Renderer]:
    """A process that may take little."""
    made = Renderer(0.2, 64 << 20)
    yield made
    made.close()


@pytest.fixture
def own() -> Iterator[Renderer]:
    made = Renderer(5.0)
    yield made
    made.close()


def process_of(made: Renderer) -> psutil.Process:
    (child,) = [child for child in psutil.Process().children() if made._process and child.pid == made._process._process.pid]
    return child


@pytest.mark.parametrize("source", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_template_that_takes_too_much_is_refused_and_the_next_chat_is_rendered(small: Renderer, source: str) -> None:
    """Some do not even compile: what is constant is computed then."""
    with pytest.raises((RequestError, ManifestError), match=r"takes more than (0\.2 s|64 MiB of memory)") as caught:
        ChatTemplate(source, {}, where=small).render(MESSAGES)
    if isinstance(caught.value, RequestError):
        assert (caught.value.code, caught.value.param) == ("too_large", "messages")
    assert ChatTemplate("fine", {}, where=small).render(MESSAGES) == "fine"


def test_who_takes_too_much_for_one_chat_renders_the_others(small: Renderer) -> None:
    template = ChatTemplate(
        "{% if messages[0].content == 'x' %}{{ 10**(10**8 * messages|length) }}{% endif %}fine", {}, where=small
    )
    for _ in range(2):
        with pytest.raises(RequestError, match=r"^the model's chat template takes more than 0\.2 s for these messages;"):
            template.render(MESSAGES)
        assert template.render([{"role": "user", "content": "y"}]) == "fine"


def test_a_text_that_is_too_long_is_refused(own: Renderer) -> None:
    with pytest.raises(RequestError, match="makes more than 32 MiB of text"):
        ChatTemplate("{{ messages[0].content * 2 ** 26 }}", {}, where=own).render(MESSAGES)


def test_others_go_on_while_one_operation_takes_for_ever(small: Renderer) -> None:
    """In this very process: what a template does keeps none of its threads waiting."""
    template, refused = ChatTemplate("{{ 10**(10**8 * messages|length) }}", {}, where=small), list[RequestError]()

    def hostile() -> None:
        with pytest.raises(RequestError) as caught:
            template.render(MESSAGES)
        refused.append(caught.value)

    asking = threading.Thread(target=hostile)
    asking.start()
    rounds = 0
    while asking.is_alive():
        rounds += 1
        asking.join(0.01)
    assert refused and rounds > 5  # of 20 at the least; one operation of this process's own would allow none


def test_the_process_that_renders_is_started_again_when_somebody_ends_it(own: Renderer) -> None:
    template = ChatTemplate("fine", {}, where=own)
    for _ in range(2):
        child = process_of(own)
        child.kill()
        child.wait()
        assert template.render(MESSAGES) == "fine"
        assert process_of(own).pid != child.pid


def test_one_that_does_not_answer_is_ended(own: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("fine", {}, where=own)
    child = process_of(own)
    monkeypatch.setattr(renderer, "_PATIENCE_S", 0.2)
    child.send_signal(signal.SIGSTOP)
    with pytest.raises(Overloaded, match=r"has not answered for 0\.2 s"):
        template.render(MESSAGES)
    assert not child.is_running()
    monkeypatch.undo()
    assert template.render(MESSAGES) == "fine"


def test_it_ends_with_the_process_that_started_it(own: Renderer) -> None:
    """Its socket is closed then."""
    ChatTemplate("fine", {}, where=own)
    child = process_of(own)
    assert own._process is not None
    own._process._socket.close()
    child.wait(10)


def test_it_has_no_file_of_its_parent_s(own: Renderer) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        ChatTemplate("fine", {}, where=own)
        held = {file.name for file in Path(f"/proc/{process_of(own).pid}/fd").iterdir()}
        assert held == {"0", "1", "2"}
    finally:
        os.close(read)
        os.close(write)


def test_where_none_can_be_started_requests_are_to_come_again(own: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("fine", {}, where=own)
    own.close()
    monkeypatch.setattr(renderer, "_python", lambda: "/nowhere/python3")
    with pytest.raises(Overloaded, match="cannot be started"):
        template.render(MESSAGES)


def test_threads_may_ask_at_once(own: Renderer) -> None:
    template = ChatTemplate("{{ messages[0].content }}", {}, where=own)
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        for _ in range(20):
            found[number] = template.render([{"role": "user", "content": str(number)}])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(4)}


def test_halves_of_surrogate_pairs_and_numbers_that_are_none_come_through(own: Renderer) -> None:
    template = ChatTemplate("{{ messages[0].content }}{{ x }}", {}, where=own)
    text = template.render(
        [{"role": "user", "content": "\ud800é\U0001f600\x00"}], variables={"x": [float("nan"), None, True, 1.5]}
    )
    assert text == "\ud800é\U0001f600\x00[nan, None, True, 1.5]"
