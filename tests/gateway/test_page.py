"""The chat page: what is served, that it loads nothing from elsewhere, and its functions of text.

Run: pytest tests/gateway/test_page.py
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any

import pytest

from fakes.ensemble import Gateway
from triune_gateway.page import FOLDER

HTML = (FOLDER / "index.html").read_text("utf-8")
SCRIPT = "".join(path.read_text("utf-8") for path in sorted(FOLDER.glob("*.js")))


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


ELEMENTS = Elements().found


def test_every_file_is_served_under_a_strict_policy(gateway: Gateway) -> None:
    names = {"" if path.name == "index.html" else path.name for path in FOLDER.iterdir()}
    assert names
    for name in names:
        response = gateway.http.get(f"/{name}")
        assert response.status_code == 200, name
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        again = gateway.http.get(f"/{name}", headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_nothing_is_loaded_from_elsewhere_or_inline() -> None:
    for path in FOLDER.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", path.read_text("utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name
    for tag, attributes in ELEMENTS:
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith("#") or (FOLDER / target).exists(), target
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", SCRIPT)


def test_every_field_has_a_name_for_screen_readers() -> None:
    labelled = {attributes["for"] for tag, attributes in ELEMENTS if tag == "label" and "for" in attributes}
    inside = set(re.findall(r"<label[^>]*>(?:(?!</label>).)*?<(?:input|select|textarea) id=\"([\w-]+)\"", HTML, re.DOTALL))
    fields = {attributes["id"] for tag, attributes in ELEMENTS if tag in ("input", "select", "textarea")}
    assert fields <= labelled | inside
    assert {"alert", "status"} <= {attributes.get("role") for _, attributes in ELEMENTS}


def test_every_element_that_the_script_asks_for_exists() -> None:
    there = {attributes["id"] for _, attributes in ELEMENTS if "id" in attributes}
    asked = set(re.findall(r'\bat\("([\w-]+)"\)', SCRIPT))
    assert asked <= there, asked - there


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart_light_and_dark() -> None:
    style = (FOLDER / "style.css").read_text("utf-8")
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(themes) == 2
    for theme in themes:
        pairs = [(text, ground) for text in ("text", "quiet", "wrong") for ground in ("page", "raised")] + [("text", "tint")]
        pairs += [(colour, "page") for colour in ("word", "string", "number", "comment")]
        for text, ground in [*pairs, ("on-accent", "accent")]:
            assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        for mark in ("field", "accent"):
            assert contrast(theme[mark], theme["page"]) >= 3, mark


def evaluate(expression: str, module: str = "text") -> Any:
    """The value of an expression of a module of the page, which it knows by the module's name."""
    if shutil.which("node") is None:
        pytest.skip("no node here")
    imported = f"import * as {module} from {json.dumps((FOLDER / f'{module}.js').as_uri())}"
    program = f"{imported}; console.log(JSON.stringify({expression}))"
    done = subprocess.run(["node", "--input-type=module", "-e", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("answer", "blocks"),
    [
        ("", []),
        ("Hi\n\nthere", [(False, "Hi\n\nthere")]),
        ("See:\n```python\nprint(1)\n```\nDone.", [(False, "See:"), (True, "print(1)"), (False, "Done.")]),
        ("```\na\n\n  b\n```", [(True, "a\n\n  b")]),
        ("open\n```js\nlet a;", [(False, "open"), (True, "let a;")]),
        ("````\n```\n````", [(True, "```")]),
        ("a ``` b", [(False, "a ``` b")]),
        ("<script>alert(1)</script>", [(False, "<script>alert(1)</script>")]),
    ],
)
def test_fences_make_blocks_of_code(answer: str, blocks: list[tuple[bool, str]]) -> None:
    found = evaluate(f"text.blocksOf({json.dumps(answer)})")
    assert [(block["code"], block["text"]) for block in found] == blocks


def test_events_are_read_whole_however_they_are_cut() -> None:
    stream = 'data: {"a": 1}\n\ndata: {"b":\ndata: 2}\n\n: comment\n\ndata: [DONE]\n\n'
    for size in (1, 2, 7, 100):
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        found = evaluate(f"(() => {{ const read = text.eventReader(); return {json.dumps(pieces)}.flatMap(read); }})()")
        assert found == ['{"a": 1}', '{"b":\n2}', "[DONE]"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("plain * 2 ** 3", [("text", "plain * 2 ** 3")]),
        ("a `b` **c d** e", [("text", "a "), ("code", "b"), ("text", " "), ("strong", "c d"), ("text", " e")]),
        ("## Title\ntext", [("strong", "Title"), ("text", "\ntext")]),
        ("open `code and **strong", [("text", "open `code and **strong")]),
        ("`**so**`", [("code", "**so**")]),
        ("**<b>**", [("strong", "<b>")]),
    ],
)
def test_marks_inside_a_text_make_pieces(text: str, pieces: list[tuple[str, str]]) -> None:
    found = evaluate(f"text.piecesOf({json.dumps(text)})")
    assert [(piece["kind"], piece["text"]) for piece in found] == pieces


def test_a_rate_needs_tokens_and_time() -> None:
    asked = "[text.rateText(1, 1), text.rateText(11, 2), text.rateText(5, 0), text.rateText(39, 0.0004), text.rateText(301, 1)]"
    assert evaluate(asked) == ["1 token", "11 tokens, 5.0 tokens/s", "5 tokens", "39 tokens", "301 tokens, 300 tokens/s"]


@pytest.mark.parametrize(
    ("language", "code", "pieces"),
    [
        ("python", "def f(x): # no\n  return 'a#b'",
         [("word", "def"), ("text", " f(x): "), ("comment", "# no"), ("text", "\n  "), ("word", "return"), ("text", " "),
          ("string", "'a#b'")]),
        ("js", "let a=1.5; //if", [("word", "let"), ("text", " a="), ("number", "1.5"), ("text", "; "), ("comment", "//if")]),
        ("cpp", "/* a\n b */int x", [("comment", "/* a\n b */"), ("word", "int"), ("text", " x")]),
        ("SQL", "SELECT 1 -- x", [("word", "SELECT"), ("text", " "), ("number", "1"), ("text", " "), ("comment", "-- x")]),
        ("json", '{"a": true}', [("text", "{"), ("string", '"a"'), ("text", ": "), ("word", "true"), ("text", "}")]),
        ("rust", "fn f<'a>() {}", [("word", "fn"), ("text", " f<'a>() {}")]),
        ("python", '"""open\nif', [("string", '"""open\nif')]),
        ("", "if (x) return", [("text", "if (x) return")]),
        ("brainfuck", "+[-]", [("text", "+[-]")]),
        ("python", "", []),
    ],
)  # fmt: skip
def test_code_is_coloured_by_what_its_language_means(language: str, code: str, pieces: list[tuple[str, str]]) -> None:
    found = evaluate(f"colours.colourPieces({json.dumps(code)}, {json.dumps(language)})", "colours")
    assert [(piece["kind"], piece["text"]) for piece in found] == pieces


def test_colours_change_no_character_of_any_code() -> None:
    rng = random.Random(7)
    parts = ['"', "'", "`", "#", "//", "/*", "*/", "--", "\\", "\n", " if ", "x1", "3.5e", "0x", "\u00e9", '"""', "<b>", "\t"]
    codes = ["".join(rng.choices(parts, k=rng.randrange(40))) for _ in range(300)]
    languages = ["python", "js", "c", "rust", "go", "bash", "sql", "json", "toml", "none"]
    joined = f"""{json.dumps(codes)}.flatMap((code) => {json.dumps(languages)}.map((language) =>
        colours.colourPieces(code, language).map((piece) => piece.text).join("") === code))"""
    assert set(evaluate(joined, "colours")) == {True}


STORAGE = """{
  kept: {}, room: %d,
  getItem(key) { return this.kept[key] ?? null; },
  setItem(key, value) { if (value.length > this.room) throw new Error("full"); this.kept[key] = value; },
}"""


def stored(program: str, room: int = 1 << 20) -> Any:
    """What a program returns that has `storage` and the module `store`."""
    return evaluate(f"(() => {{ const storage = {STORAGE % room}; {program} }})()", "store")


def test_conversations_are_kept_the_latest_first_and_found_again() -> None:
    program = """
      const chats = new store.Chats(storage), chat = (id) => ({id, at: 1, turns: [{role: "user", text: `from ${id}`}]});
      chats.save(chat("a")); chats.save(chat("b")); chats.save(chat("a"));
      const again = new store.Chats(storage);
      again.remove("b");
      const ids = (of) => of.all.map((one) => one.id);
      return [ids(chats), ids(again), store.titleOf(new store.Chats(storage).find("a"))];"""
    assert stored(program) == [["a", "b"], ["a"], "from a"]


def test_what_another_tab_kept_is_not_lost() -> None:
    program = """
      const one = new store.Chats(storage), other = new store.Chats(storage);
      const chat = (id) => ({id, at: 1, turns: [{role: "user", text: id}]});
      one.save(chat("a")); other.save(chat("b"));
      return new store.Chats(storage).all.map((kept) => kept.id);"""
    assert stored(program) == ["b", "a"]


def test_where_room_is_short_the_oldest_conversations_go() -> None:
    program = """
      const chats = new store.Chats(storage);
      for (const id of "abcdef") chats.save({id, at: 1, turns: [{role: "user", text: id.repeat(100)}]});
      return new store.Chats(storage).all.map((kept) => kept.id).join("");"""
    assert stored(program, room=400) == "fe"


@pytest.mark.parametrize(
    "raw", ["{", "7", "null", '[{"id": 1}]', '[{"id": "a", "turns": [{"role": "x"}]}]', '[null, {"id": "a"}]']
)
def test_a_storage_that_somebody_else_wrote_is_no_conversation(raw: str) -> None:
    program = f"""storage.kept["triune.chats"] = {json.dumps(raw)}; return new store.Chats(storage).all;"""
    assert stored(program) == []


def test_without_a_storage_nothing_is_kept_and_nothing_fails() -> None:
    assert stored('const chats = new store.Chats(null); chats.save({id: "a", turns: []}); return chats.all.length;') == 1
