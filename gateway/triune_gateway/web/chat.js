// The chat page: one conversation with the server that sent this page. Text of the model is only ever shown as text.

import { blocksOf, eventReader, piecesOf, rateText } from "./text.js";

const at = (id) => document.getElementById(id);
const form = at("form"), prompt = at("prompt"), send = at("send"), stop = at("stop"), turns = at("turns"), page = document.querySelector("main");

const FINISHED = { length: "The answer was cut off: it reached the most tokens.", stopped: "Stopped." };
let messages = []; // what the server is sent
let running = null; // the AbortController of the answer under way

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Sets the text of an element only if it changes, so that a selection survives the stream. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- turns ---

function addTurn(role) {
  const turn = make("li", role);
  turn.append(make("h2", "who", role === "user" ? "You" : at("model").value || "Answer"));
  turns.append(turn);
  at("welcome").hidden = true;
  return turn;
}

function showUser(text) {
  const turn = addTurn("user");
  turn.append(make("div", "text", text));
  return turn;
}

/** An answer on the page; `text` and `thoughts` grow, `draw` shows them. */
class Answer {
  constructor() {
    this.turn = addTurn("assistant");
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
        setText(element.querySelector("code"), block.text);
      } else {
        drawPieces(element, piecesOf(block.text));
      }
    });
    while (this.body.children.length > blocks.length) this.body.lastChild.remove();
  }
}

const TAGS = { text: "span", code: "code", strong: "strong" };

/** Shows a text's pieces; what has not changed stays, and with it a selection. */
function drawPieces(element, pieces) {
  pieces.forEach(({ kind, text }, index) => {
    const there = element.children[index];
    if (there?.localName === TAGS[kind]) return setText(there, text);
    const made = make(TAGS[kind], "", text);
    there ? there.replaceWith(made) : element.append(made);
  });
  while (element.children.length > pieces.length) element.lastChild.remove();
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

function button(text, action) {
  const made = make("button", "small", text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

function codeBlock() {
  const block = make("div", "code"), head = make("div"), pre = make("pre"), code = make("code");
  const copy = button("Copy", () => copyText(code.textContent, code));
  copy.setAttribute("aria-label", "Copy the code");
  pre.tabIndex = 0; // wide code can be scrolled with the keyboard
  head.append(make("span"), copy);
  pre.append(code);
  block.append(head, pre);
  return block;
}

// --- the server ---

function headers() {
  const key = at("key").value.trim();
  return { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
}

function request() {
  const system = at("system").value.trim(), temperature = at("temperature").value, most = at("max-tokens").value;
  const thinking = at("thinking").value;
  return {
    model: at("model").value || "triune",
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    ...(temperature && { temperature: Number(temperature) }),
    ...(most && { max_tokens: Number(most) }),
    ...(thinking && { enable_thinking: thinking === "true" }),
  };
}

async function* eventsOf(response) {
  const read = eventReader(), reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the connection closed before the answer's end");
    for (const data of read(value)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

async function refusal(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}

async function ask() {
  const answer = new Answer();
  let reason = null, tokens = 0, firstAt = 0, lastAt = 0;
  page.scrollTop = page.scrollHeight;
  const rate = () => rateText(tokens, (lastAt - firstAt) / 1000);
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(request()), signal: running.signal,
    });
    if (!response.ok) throw new Error(await refusal(response));
    for await (const { choices: [choice], usage } of eventsOf(response)) {
      if (choice) {
        lastAt = performance.now();
        firstAt ||= lastAt;
        answer.add(choice.delta.reasoning_content, choice.delta.content);
        reason = choice.finish_reason ?? reason;
      }
      if (usage) setText(at("rate"), ((tokens = usage.completion_tokens), rate()));
    }
  } catch (error) {
    if (!running.signal.aborted) showError(error.message);
    reason = running.signal.aborted ? "stopped" : "failed";
  }
  answer.draw();
  answer.waiting.remove();
  setText(at("rate"), "");
  answer.note.append(make("span", "", [FINISHED[reason], tokens ? `${rate()}.` : ""].filter(Boolean).join(" ")));
  if (answer.text) {
    const copy = button("Copy", () => copyText(answer.text, answer.body));
    copy.setAttribute("aria-label", "Copy the answer");
    answer.note.append(copy);
  }
  answer.thinking?.classList.remove("live");
  if (answer.thinking && !answer.told) setText(answer.thinking.firstChild, "Thinking");
  return { answer, reason };
}

// --- the form ---

function tell(text) {
  setText(at("status"), text);
}

function showError(text) {
  at("error").textContent = text;
  at("error").hidden = !text;
  if (text) at("error").scrollIntoView({ block: "nearest" });
}

function setRunning(controller) {
  running = controller;
  send.hidden = Boolean(controller);
  stop.hidden = !controller;
  turns.setAttribute("aria-busy", String(Boolean(controller)));
}

async function submit() {
  const text = prompt.value.trim();
  if (running || !text) return;
  const conversation = messages;
  showError("");
  prompt.value = "";
  messages.push({ role: "user", content: text });
  const question = showUser(text);
  setRunning(new AbortController());
  tell("Answering");
  const { answer, reason } = await ask();
  if (conversation !== messages) return; // a new chat has begun meanwhile
  setRunning(null);
  if (answer.text) {
    messages.push({ role: "assistant", content: answer.text });
    tell(`${reason === "stopped" ? "Stopped" : "Answer complete"}: ${answer.text}`);
  } else {
    messages.pop(); // a question without an answer is no turn
    tell(reason === "stopped" ? "Stopped" : "");
  }
  if (reason === "failed" && !answer.text) {
    question.remove();
    answer.turn.remove();
    prompt.value ||= text; // so that it can be sent again
  }
  prompt.focus();
}

function startOver() {
  running?.abort();
  messages = [];
  turns.replaceChildren();
  showError("");
  setText(at("rate"), "");
  at("welcome").hidden = false;
  setRunning(null);
  tell("New chat");
  prompt.focus();
}

async function loadModels() {
  const response = await fetch("v1/models", { headers: headers() });
  if (!response.ok) return showError(await refusal(response));
  showError("");
  const names = (await response.json()).data.map((model) => model.id);
  at("model").replaceChildren(...names.map((name) => new Option(name, name)));
  at("model").disabled = names.length < 2;
}

for (const example of document.querySelectorAll("#welcome button")) {
  example.addEventListener("click", () => {
    prompt.value = example.textContent;
    submit();
  });
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
stop.addEventListener("click", () => running?.abort());
at("new").addEventListener("click", startOver);
at("key").addEventListener("change", () => loadModels().catch((error) => showError(error.message)));
loadModels().catch((error) => showError(`the server does not answer: ${error.message}`));
