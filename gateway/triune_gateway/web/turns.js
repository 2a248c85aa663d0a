// Turns of a conversation on the page. Text of the model is only ever shown as text.

import { colourPieces } from "./colours.js";
import { blocksOf, piecesOf } from "./text.js";

const at = (id) => document.getElementById(id);
const turns = at("turns"), page = document.querySelector("main");
const TAGS = { text: "span", code: "code", strong: "strong" };

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Sets the text of an element only if it changes, so that a selection survives the stream. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tells readers of the screen. */
export function tell(text) {
  setText(at("status"), text);
}

export function button(text, label, action) {
  const made = make("button", "small", text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}

/** Copies a text; where the page may not (no clipboard without https), selects `element` instead, to be copied by hand. */
async function copyText(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    tell("Copied");
  } catch {
    getSelection().selectAllChildren(element);
    tell("Selected, to be copied by hand");
  }
}

function addTurn(role, who) {
  const turn = make("li", role);
  turn.append(make("h2", "who", who));
  turns.append(turn);
  at("welcome").hidden = true;
  return turn;
}

/** A question; `onEdit` is called with its new text when the reader has changed it. */
export function showQuestion(text, onEdit) {
  const turn = addTurn("user", "You"), body = make("div", "text", text), note = make("p", "note");
  const edit = button("Edit", "Edit the message", () => editing(turn, body, note, text, onEdit));
  note.append(edit, button("Copy", "Copy the message", () => copyText(text, body)));
  turn.append(body, note);
  return turn;
}

function editing(turn, body, note, text, onEdit) {
  const form = make("form", "edit"), field = make("textarea"), actions = make("p", "note");
  const close = () => {
    form.remove();
    body.hidden = note.hidden = false;
    note.firstChild.focus();
  };
  field.value = text;
  field.setAttribute("aria-label", "Message, edited");
  const save = make("button", "small", "Send");
  save.type = "submit";
  actions.append(save, button("Cancel", "Cancel the edit", close));
  form.append(field, actions);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) onEdit(field.value.trim());
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  body.hidden = note.hidden = true;
  turn.append(form);
  field.focus();
}

/** An answer on the page; `text` and `thoughts` grow, `draw` shows them. */
export class Answer {
  constructor(who) {
    this.turn = addTurn("assistant", who || "Answer");
    this.body = make("div", "body");
    this.note = make("p", "note");
    this.waiting = make("p", "waiting");
    this.waiting.append(make("span"), make("span"), make("span"));
    this.turn.append(this.waiting, this.body, this.note);
    this.text = this.thoughts = "";
    this.begun = performance.now();
    this.touched = false; // the reader has opened or closed the thinking
    this.pending = 0;
  }

  add(thought, text) {
    if (thought) this.thoughts += thought;
    if (text && !this.text) this.thoughtFor = performance.now() - this.begun;
    if (text) this.text += text;
    this.pending ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.pending);
    this.pending = 0;
    if (this.thoughts || this.text) this.waiting.remove();
    const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 40;
    if (this.thoughts) this.drawThoughts();
    this.drawText();
    if (atEnd) page.scrollTop = page.scrollHeight;
  }

  /** The answer is over: `note` says how; `onAgain`, if any, asks for another in its place. */
  end(note, onAgain) {
    this.draw();
    this.waiting.remove();
    this.note.append(make("span", "", note));
    if (this.text) this.note.append(button("Copy", "Copy the answer", () => copyText(this.text, this.body)));
    if (onAgain) this.note.append(button("Regenerate", "Regenerate the answer", onAgain));
    this.thinking?.classList.remove("live");
    if (this.thinking && !this.told) setText(this.thinking.firstChild, "Thinking");
  }

  drawThoughts() {
    if (!this.thinking) {
      this.thinking = make("details", "thinking live");
      this.thinking.open = true;
      const summary = make("summary", "", "Thinking …");
      summary.addEventListener("click", () => (this.touched = true));
      this.thinking.append(summary, make("div"));
      this.turn.insertBefore(this.thinking, this.body);
    }
    setText(this.thinking.lastChild, this.thoughts.trim());
    if (this.text && !this.told) {
      this.told = true;
      this.thinking.classList.remove("live");
      setText(this.thinking.firstChild, `Thought for ${(this.thoughtFor / 1000).toFixed(1)} s`);
      if (!this.touched) this.thinking.open = false;
    }
  }

  drawText() {
    const blocks = blocksOf(this.text);
    blocks.forEach((block, index) => {
      let element = this.body.children[index];
      if (!element || element.classList.contains("code") !== block.code) {
        const made = block.code ? codeBlock() : make("div", "text");
        element ? element.replaceWith(made) : this.body.append(made);
        element = made;
      }
      if (block.code) {
        setText(element.querySelector("span"), block.language || "code");
        drawPieces(element.querySelector("code"), colourPieces(block.text, block.language));
      } else {
        drawPieces(element, piecesOf(block.text));
      }
    });
    while (this.body.children.length > blocks.length) this.body.lastChild.remove();
  }
}

/** Shows a text's pieces; what has not changed stays, and with it a selection. */
function drawPieces(element, pieces) {
  pieces.forEach(({ kind, text }, index) => {
    const there = element.children[index], tag = TAGS[kind] ?? "span", className = TAGS[kind] ? "" : kind;
    if (there?.localName === tag && there.className === className) return setText(there, text);
    const made = make(tag, className, text);
    there ? there.replaceWith(made) : element.append(made);
  });
  while (element.children.length > pieces.length) element.lastChild.remove();
}

function codeBlock() {
  const block = make("div", "code"), head = make("div"), pre = make("pre"), code = make("code");
  pre.tabIndex = 0; // wide code can be scrolled with the keyboard
  head.append(make("span"), button("Copy", "Copy the code", () => copyText(code.textContent, code)));
  pre.append(code);
  block.append(head, pre);
  return block;
}
