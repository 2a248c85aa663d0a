// What the page asks of the server that sent it.

import { eventReader } from "./text.js";

/** The message of a refusal. */
export async function refusal(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}

export function headers(key) {
  return { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
}

/** The names that models are served under. */
export async function fetchModels(key) {
  const response = await fetch("v1/models", { headers: headers(key) });
  if (!response.ok) throw new Error(await refusal(response));
  return (await response.json()).data.map((model) => model.id);
}

/** The events of an answer to `body`, as objects, until it is whole; throws what the server refuses, or where it breaks off. */
export async function* answerEvents(body, key, signal) {
  const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(key), body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await refusal(response));
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
