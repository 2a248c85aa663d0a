// Visits the chat page in headless Chromium and prints what it saw as one JSON line. Arguments: URL, folder of node_modules,
// folder for screenshots. Started by test_page_in_chromium.py.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, modules, shots] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const load = async (name) => {
  const module = await import(pathToFileURL(require.resolve(name)));
  return module.default?.default ?? module.default;
};
const chromium = await load("@sparticuz/chromium"), puppeteer = await load("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");

const browser = await puppeteer.launch({ args: chromium.args, executablePath: await chromium.executablePath(), headless: "shell" });
const page = await browser.newPage();
const seen = { problems: [], elsewhere: [], violations: {} };
page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.problems.push(message.text()));
page.on("pageerror", (error) => seen.problems.push(String(error)));
page.on("request", (request) => request.url().startsWith(url) || seen.elsewhere.push(request.url()));

const text = (selector) => page.$$eval(selector, (found) => found.map((element) => element.textContent));
const shown = (selector) => page.$eval(selector, (element) => element.checkVisibility());
const idle = () => page.waitForSelector("#send:not([hidden])");
async function say(words) {
  await page.type("#prompt", words);
  await page.keyboard.press("Enter");
}

await page.goto(url);
await page.waitForFunction(() => document.getElementById("model").options.length > 0);
seen.focused = await page.evaluate(() => document.activeElement.id);

// a question that is thought about, and answered with code
await say("think");
await page.waitForSelector(".thinking[open]");
seen.stopShown = await shown("#stop");
await idle();
seen.thoughts = await text(".thinking > div");
seen.thinkingOpen = await page.$eval(".thinking", (element) => element.open);
seen.answer = await text(".assistant .text");
seen.code = await text(".code pre");
seen.scripts = await page.$$eval("#turns script", (found) => found.length);
seen.note = await text(".note");
seen.status = await text("#status");
await page.focus(".thinking summary");
await page.keyboard.press("Space");
seen.thinkingOpenedByKey = await page.$eval(".thinking", (element) => element.open);

// an answer that is stopped by a key
await say("slow");
await page.waitForFunction(() => document.querySelectorAll(".assistant").length === 2 && document.querySelectorAll(".assistant")[1].querySelector(".text"));
await page.keyboard.press("Escape");
await idle();
seen.stopped = (await text(".note")).at(-1);

// a refusal
await say("refuse");
await page.waitForSelector("#error:not([hidden])");
await idle();
seen.error = await text("#error");
seen.kept = await page.$eval("#prompt", (element) => element.value);

// how it looks, and what a checker of accessibility finds
await page.evaluate(() => (document.getElementById("settings").open = true));
for (const scheme of ["light", "dark"]) {
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  for (const [name, width, height] of [["narrow", 360, 740], ["wide", 1280, 800]]) {
    await page.setViewport({ width, height });
    await page.screenshot({ path: `${shots}/${scheme}-${name}.png` });
    seen[`overflow-${name}`] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    await page.evaluate(axe); // evaluated by the debugger: no script element
    const found = await page.evaluate(() => window.axe.run());
    seen.violations[`${scheme}-${name}`] = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
  }
}

await page.click("#new");
seen.turnsAfterNew = (await page.$$("#turns > li")).length;
console.log(JSON.stringify(seen));
await browser.close();
