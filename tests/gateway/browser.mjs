// A headless Chromium for the tests of the chat page, and what every visit watches for. Not a test.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

/** Opens the page. `modules`: the folder of node_modules. `executable`: a Chromium of the system, or "" for npm's. */
export async function open(url, modules, executable) {
  const require = createRequire(`${modules}/`);
  const load = async (name) => {
    const module = await import(pathToFileURL(require.resolve(name)));
    return module.default?.default ?? module.default;
  };
  const { chromium } = await load("playwright-core");
  const executablePath = executable || (await (await load("@sparticuz/chromium")).executablePath());
  // The sandbox needs rights that containers do not give; nothing but the page under test is ever opened.
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"], headless: true });
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  const seen = { problems: [], elsewhere: [], violations: {}, overflow: {} };
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.problems.push(message.text()));
  page.on("pageerror", (error) => seen.problems.push(String(error)));
  page.on("request", (request) => request.url().startsWith(url) || seen.elsewhere.push(request.url()));
  const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");
  return { browser, page, seen, axe };
}

/** Screenshots in four looks, each with what axe-core finds wrong with it and how far it is too wide. */
export async function look({ page, seen, axe }, folder, name) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    for (const [size, width, height] of [["narrow", 360, 740], ["wide", 1280, 800]]) {
      const key = `${name}-${colorScheme}-${size}`;
      await page.setViewportSize({ width, height });
      await page.screenshot({ path: `${folder}/${key}.png` });
      seen.overflow[key] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      await page.evaluate(axe); // evaluated by the debugger: no script element
      const { violations } = await page.evaluate(() => window.axe.run());
      seen.violations[key] = violations.map((one) => `${one.impact}: ${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
    }
  }
}

/** Writes into the message field and presses Enter. */
export async function say(page, words) {
  await page.fill("#prompt", words);
  await page.press("#prompt", "Enter");
}

/** Waits until no answer is under way. */
export const idle = (page) => page.waitForSelector("#send:visible", { timeout: 120_000 });
