// Conversations and settings in the browser's own storage: nothing of them leaves this machine. No page, no network.

const CHATS = "triune.chats", SETTINGS = "triune.settings";
const MOST = 100; // conversations; the ones not touched for longest go

/**
 * The conversations kept in `storage` (a Storage, or null where the browser allows none: then nothing is kept).
 * A conversation is {id, at, turns: [{role, text, thoughts?, thoughtFor?, note?}]}; `at` is when it was touched, in milliseconds.
 */
export class Chats {
  constructor(storage) {
    this.storage = storage;
    this.all = readJson(storage, CHATS, Array.isArray, []).filter(isChat);
  }

  /** The conversation of that id, or undefined. */
  find(id) {
    return this.all.find((chat) => chat.id === id);
  }

  /** Keeps a conversation as it is now, as the first. Where there is no room for all, the oldest are forgotten. */
  save(chat) {
    const others = readJson(this.storage, CHATS, Array.isArray, []).filter(isChat); // another tab may have written meanwhile
    this.all = [chat, ...others.filter((other) => other.id !== chat.id)].slice(0, MOST);
    while (!this.write() && this.all.length > 1) this.all.pop();
  }

  remove(id) {
    this.all = readJson(this.storage, CHATS, Array.isArray, []).filter((chat) => isChat(chat) && chat.id !== id);
    this.write();
  }

  clear() {
    this.all = [];
    this.write();
  }

  /** Whether everything could be kept. */
  write() {
    try {
      this.storage?.setItem(CHATS, JSON.stringify(this.all));
      return true;
    } catch {
      return false; // its room is used up
    }
  }
}

/** What a conversation is called: how it begins. */
export function titleOf(chat) {
  const words = chat.turns.find((turn) => turn.role === "user")?.text.trim().replace(/\s+/g, " ") ?? "";
  return words.length > 60 ? `${words.slice(0, 59)}…` : words || "New chat";
}

/** The settings {id of a field: its value} that were kept. */
export function readSettings(storage) {
  return readJson(storage, SETTINGS, (value) => value && typeof value === "object", {});
}

export function writeSettings(storage, settings) {
  try {
    storage?.setItem(SETTINGS, JSON.stringify(settings));
  } catch {
    // they hold until the page is left
  }
}

function readJson(storage, key, fits, otherwise) {
  try {
    const found = JSON.parse(storage?.getItem(key) ?? "null");
    return fits(found) ? found : otherwise;
  } catch {
    return otherwise; // nobody of ours wrote that
  }
}

function isChat(chat) {
  const isTurn = (turn) => (turn?.role === "user" || turn?.role === "assistant") && typeof turn.text === "string";
  return typeof chat?.id === "string" && Array.isArray(chat.turns) && chat.turns.length > 0 && chat.turns.every(isTurn);
}
