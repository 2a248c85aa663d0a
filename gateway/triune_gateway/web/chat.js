// The chat page: conversations with the server that sent this page, kept in this browser alone.

import { answerEvents, fetchModels } from "./server.js";
import { Chats, readSettings, titleOf, writeSettings } from "./store.js";
import { rateText } from "./text.js";
import { Answer, button, make, setText, showQuestion, tell } from "./turns.js";

const at = (id) => document.getElementById(id);
const form = at("form"), prompt = at("prompt"), send = at("send"), stop = at("stop"), turns = at("turns"), page = document.querySelector("main");
const FIELDS = ["system", "temperature", "top-p", "seed", "max-tokens", "thinking", "model"]; // that are kept; the key is not
const FINISHED = { length: "The answer was cut off: it reached the most tokens.", stopped: "Stopped." };

const storage = (() => {
  try {
    return window.localStorage; // throws where the browser allows no storage
  } catch {
    return null;
  }
})();
const chats = new Chats(storage);
const freshChat = () => ({ id: `${Date.now().toString(36)}${Math.random().toString(36).slice(2)}`, at: Date.now(), turns: [] });
let chat = freshChat();
let running = null; // the AbortController of the answer under way

// --- one conversation ---

function request() {
  const value = (id) => at(id).value.trim();
  const number = (name, id) => (value(id) === "" ? {} : { [name]: Number(value(id)) });
  const messages = chat.turns.map(({ role, text }) => ({ role, content: text }));
  return {
    model: at("model").value || "triune",
    messages: value("system") ? [{ role: "system", content: value("system") }, ...messages] : messages,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    ...number("temperature", "temperature"), ...number("top_p", "top-p"), ...number("seed", "seed"), ...number("max_tokens", "max-tokens"),
    ...(value("thinking") && { reasoning_effort: value("thinking") }),
  };
}

/** Lets the model answer what the conversation ends with. */
async function ask() {
  const answer = new Answer(at("model").value), asked = chat, own = new AbortController();
  let reason = null, tokens = 0, firstAt = 0, lastAt = 0;
  const rate = () => rateText(tokens, (lastAt - firstAt) / 1000);
  setRunning(own);
  tell("Answering");
  page.scrollTop = page.scrollHeight;
  try {
    for await (const { choices: [choice], usage } of answerEvents(request(), at("key").value.trim(), own.signal)) {
      if (choice) {
        lastAt = performance.now();
        firstAt ||= lastAt;
        answer.add(choice.delta.reasoning_content, choice.delta.content);
        reason = choice.finish_reason ?? reason;
      }
      if (usage) setText(at("rate"), ((tokens = usage.completion_tokens), rate()));
    }
  } catch (error) {
    if (!own.signal.aborted) showError(error.message);
    reason = own.signal.aborted ? "stopped" : "failed";
  }
  if (asked !== chat) return keep(asked, answer, reason); // another conversation is shown meanwhile
  setText(at("rate"), "");
  setRunning(null);
  const note = [FINISHED[reason], tokens ? `${rate()}.` : ""].filter(Boolean).join(" ");
  if (answer.text) {
    keep(asked, answer, reason, note);
    answer.end(note, again(asked.turns.length - 2));
    tell(`${reason === "stopped" ? "Stopped" : "Answer complete"}: ${answer.text}`);
  } else {
    takeBack(answer, reason, note);
  }
  prompt.focus();
}

/** Adds an answer to its conversation, and keeps that. */
function keep(asked, answer, reason, note = FINISHED[reason] ?? "") {
  if (!answer.text || asked.turns.at(-1)?.role !== "user") return;
  asked.turns.push({ role: "assistant", text: answer.text, thoughts: answer.thoughts, thoughtFor: answer.thoughtFor, note });
  asked.at = Date.now();
  chats.save(asked);
  listChats();
}

/** A question without an answer is no turn: it goes back to the message field where the server failed. */
function takeBack(answer, reason, note) {
  const { text } = chat.turns.pop();
  answer.end(note, null);
  tell(reason === "stopped" ? "Stopped" : "");
  if (reason === "failed") {
    turns.lastChild.remove();
    turns.lastChild.remove();
    prompt.value ||= text; // so that it can be sent again
  }
}

function addQuestion(text) {
  const place = chat.turns.length;
  chat.turns.push({ role: "user", text });
  showQuestion(text, (changed) => askFrom(place, changed));
}

/** Asks with another question in the place of turn `place`; what followed it is forgotten. */
function askFrom(place, text) {
  if (running) return;
  showError("");
  chat.turns.length = place;
  draw();
  addQuestion(text);
  ask();
}

/** What asks for another answer to the question of turn `place`. */
const again = (place) => () => askFrom(place, chat.turns[place].text);

function submit() {
  const text = prompt.value.trim();
  if (running || !text) return;
  showError("");
  prompt.value = "";
  addQuestion(text);
  ask();
}

/** Shows the conversation anew. */
function draw() {
  const { turns: kept } = chat;
  turns.replaceChildren();
  at("welcome").hidden = kept.length > 0;
  kept.forEach(({ role, text, thoughts, thoughtFor, note }, place) => {
    if (role === "user") return showQuestion(text, (changed) => askFrom(place, changed));
    const answer = new Answer(at("model").value);
    Object.assign(answer, { text, thoughts: thoughts ?? "", thoughtFor: thoughtFor ?? 0 });
    answer.end(note ?? "", again(place - 1));
  });
  page.scrollTop = page.scrollHeight;
}

// --- conversations ---

function show(next) {
  running?.abort();
  chat = next;
  setRunning(null);
  showError("");
  setText(at("rate"), "");
  draw();
  listChats();
  at("history").open = false;
  prompt.focus();
}

function listChats() {
  const entries = chats.all.map((kept) => {
    const entry = make("li"), title = titleOf(kept);
    const opener = button(title, "", () => show(structuredClone(chats.find(kept.id) ?? kept)));
    if (kept.id === chat.id) opener.setAttribute("aria-current", "true");
    entry.append(opener, button("Delete", `Delete ${title}`, () => {
      chats.remove(kept.id);
      if (kept.id === chat.id) show(freshChat());
      else listChats();
      tell("Deleted");
    }));
    return entry;
  });
  at("chats").replaceChildren(...entries);
  at("history").hidden = entries.length === 0;
}

// --- the form ---

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

async function loadModels() {
  const names = await fetchModels(at("key").value.trim());
  showError("");
  at("model").replaceChildren(...names.map((name) => new Option(name, name)));
  at("model").disabled = names.length < 2;
  const kept = readSettings(storage).model;
  if (names.includes(kept)) at("model").value = kept;
}

const kept = readSettings(storage);
for (const id of FIELDS) {
  if (id !== "model" && typeof kept[id] === "string") at(id).value = kept[id];
  at(id).addEventListener("input", () => writeSettings(storage, Object.fromEntries(FIELDS.map((name) => [name, at(name).value]))));
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
at("new").addEventListener("click", () => {
  show(freshChat());
  tell("New chat");
});
at("forget").addEventListener("click", () => {
  chats.clear();
  show(freshChat());
  tell("All chats deleted");
});
at("key").addEventListener("change", () => loadModels().catch((error) => showError(error.message)));
if (chats.all.length) show(structuredClone(chats.all[0]));
loadModels().catch((error) => showError(`the server does not answer: ${error.message}`));
