// Pure functions of text: events out of a stream, blocks of code out of an answer. No page, no network.

/**
 * Splits a stream of server-sent events. Call it with each piece of text; it returns the data of the events that are whole.
 */
export function eventReader() {
  let rest = "";
  return (piece) => {
    rest += piece;
    const events = rest.split("\n\n");
    rest = events.pop();
    return events.map(dataOf).filter((data) => data !== "");
  };
}

function dataOf(event) {
  const lines = event.split("\n").filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).trimStart()).join("\n");
}

/**
 * An answer as blocks: {code: false, text} and {code: true, language, text}. A fence that is not closed yet is code to the end.
 */
export function blocksOf(answer) {
  const blocks = [];
  let lines = [];
  let fence = null;
  const close = (code, language) => {
    const text = lines.join("\n");
    if (code || text.trim() !== "") blocks.push({ code, language, text: code ? text : text.replace(/^\n+|\n+$/g, "") });
    lines = [];
  };
  for (const line of answer.split("\n")) {
    const found = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/.exec(line);
    if (fence === null && found) {
      close(false, "");
      fence = { mark: found[1], language: found[2].trim() };
    } else if (fence !== null && found && found[2] === "" && found[1].startsWith(fence.mark)) {
      close(true, fence.language);
      fence = null;
    } else {
      lines.push(line);
    }
  }
  close(fence !== null, fence === null ? "" : fence.language);
  return blocks;
}

/**
 * A text as pieces {kind, text}: "text", "code" for `so`, "strong" for **so** and for headings. Marks that are not closed are text.
 */
export function piecesOf(text) {
  const pieces = [];
  let at = 0;
  for (const found of text.matchAll(/`([^`\n]+)`|\*\*(?=\S)([^\n]*?\S)\*\*|^#{1,6} +([^\n]+)$/gm)) {
    if (found.index > at) pieces.push({ kind: "text", text: text.slice(at, found.index) });
    pieces.push(found[1] === undefined ? { kind: "strong", text: found[2] ?? found[3] } : { kind: "code", text: found[1] });
    at = found.index + found[0].length;
  }
  if (at < text.length) pieces.push({ kind: "text", text: text.slice(at) });
  return pieces;
}

const SHORTEST_S = 0.2; // pieces that come in one burst tell nothing about the model

/** "12 tokens, 34.5 tokens/s"; without a rate where there is too little to tell. */
export function rateText(tokens, seconds) {
  const count = `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
  if (tokens < 2 || seconds < SHORTEST_S) return count;
  const rate = (tokens - 1) / seconds;
  return `${count}, ${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`;
}
