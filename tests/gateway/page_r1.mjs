// Visits the chat page of a server of r1-nano: asks, watches the answer come, reads the thinking, stops one. Prints what it saw.
// Arguments as of page.mjs.
import { idle, look, open, say } from "./browser.mjs";

const [url, modules, executable, shots] = process.argv.slice(2);
const visit = await open(url, modules, executable);
const { page, seen } = visit;

await page.goto(url);
await page.waitForFunction(() => document.getElementById("model").options.length > 0);
seen.models = await page.locator("#model option").allTextContents();
await page.evaluate(() => {
  window.lengths = new Set(); // of what is on the page, each time that it changes
  new MutationObserver(() => window.lengths.add(document.getElementById("turns").textContent.length)).observe(
    document.getElementById("turns"), { subtree: true, childList: true, characterData: true },
  );
});
await page.click("#settings summary");
await page.fill("#temperature", "0");
await page.click("#settings summary");
await say(page, "What is 17 * 4 + 9?");
await idle(page);
seen.steps = await page.evaluate(() => window.lengths.size);
seen.answer = await page.textContent(".assistant .text");
seen.thoughts = await page.textContent(".thinking > div");
seen.summary = await page.textContent(".thinking summary");
seen.folded = !(await page.$eval(".thinking", (element) => element.open));
seen.note = await page.textContent(".note span");
await page.click(".thinking summary");
await look(visit, shots, "r1");
await page.click(".thinking summary");

// stopped from within the page, as soon as there is something to stop: a small model is quicker than a click from outside
await page.click("#settings summary");
await page.fill("#temperature", "2");
await page.click("#settings summary");
await say(page, "What is 9876 * 8765?");
await page.waitForFunction(() => {
  const stop = document.getElementById("stop");
  const thought = document.querySelectorAll(".assistant")[1]?.querySelector(".thinking > div")?.textContent;
  if (stop.hidden || !thought) return false;
  stop.click();
  return true;
});
await idle(page);
seen.stopped = await page.locator(".note span").last().textContent();
console.log(JSON.stringify(seen));
await visit.browser.close();
