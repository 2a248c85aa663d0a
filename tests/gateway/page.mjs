// Visits the chat page over a scripted model and prints what it saw as one JSON line. Arguments: URL, folder of node_modules,
// a Chromium of the system or "", folder for screenshots. Started by test_page_in_chromium.py.
import { idle, look, open, say } from "./browser.mjs";

const [url, modules, executable, shots] = process.argv.slice(2);
const visit = await open(url, modules, executable);
const { page, seen } = visit;
const texts = (selector) => page.locator(selector).allTextContents();

await page.goto(url);
await page.waitForFunction(() => document.getElementById("model").options.length > 0);
seen.focused = await page.evaluate(() => document.activeElement.id);
await look(visit, shots, "empty");

// a question that is thought about, and answered with code
await say(page, "think");
await page.waitForSelector(".thinking[open]");
seen.stopShown = await page.isVisible("#stop");
await idle(page);
seen.thoughts = await texts(".thinking > div");
seen.thinkingOpen = await page.$eval(".thinking", (element) => element.open);
seen.answer = await texts(".assistant .text");
seen.strong = await texts(".assistant .text strong");
seen.code = await texts(".code pre");
seen.strings = await texts(".code pre .string");
seen.scripts = await page.locator("#turns script").count();
seen.note = await texts(".note span");
seen.status = await texts("#status");
seen.waiting = await page.locator(".waiting").count();
await page.focus(".thinking summary");
await page.keyboard.press("Space");
seen.thinkingOpenedByKey = await page.$eval(".thinking", (element) => element.open);
await page.getByRole("button", { name: "Copy the answer" }).click();
await page.waitForFunction(() => /^(Copied|Selected)/.test(document.querySelector("#status").textContent));
seen.copied = (await texts("#status"))[0];

// an answer that is stopped by a key
await say(page, "slow");
await page.waitForFunction(() => document.querySelectorAll(".assistant")[1]?.querySelector(".text"));
seen.rateWhileRunning = await page.textContent("#rate");
await page.keyboard.press("Escape");
await idle(page);
seen.stopped = (await texts(".note span")).at(-1);

// a refusal
await say(page, "refuse");
await page.waitForSelector("#error:visible");
await idle(page);
seen.error = await texts("#error");
seen.kept = await page.inputValue("#prompt");

await page.evaluate(() => (document.getElementById("settings").open = true));
await page.fill("#system", "Be brief.");
await look(visit, shots, "answered");

// history: kept over a reload, with what was thought; the answer is made anew; a question is changed
await page.reload();
await page.waitForSelector(".assistant .text");
seen.keptAnswers = await texts(".assistant .text");
seen.keptThoughts = await texts(".thinking > div");
seen.keptSystem = await page.inputValue("#system");
await page.getByRole("button", { name: "Regenerate the answer" }).first().click();
await page.waitForSelector(".thinking[open]");
await idle(page);
seen.afterRegenerate = await page.locator("#turns > li").count();
await page.getByRole("button", { name: "Edit the message" }).first().click();
seen.editFocused = await page.evaluate(() => document.activeElement.value);
await look(visit, shots, "editing");
await page.keyboard.press("Escape");
seen.editCancelled = await page.locator(".edit").count();
await page.getByRole("button", { name: "Edit the message" }).first().click();
await page.fill(".edit textarea", "think again");
await page.keyboard.press("Enter");
await page.waitForSelector(".thinking[open]");
await idle(page);
seen.afterEdit = await texts("#turns .user > .text");

await page.click("#new");
seen.turnsAfterNew = await page.locator("#turns > li").count();

// an example is a question
await page.click("#welcome button >> nth=0");
await page.waitForSelector(".user .text");
seen.example = await texts(".user .text");
await page.keyboard.press("Escape");
await idle(page);

// earlier chats
await page.click("#history summary");
seen.chats = await texts("#chats button:first-child");
await look(visit, shots, "history");
await page.click("#chats button:first-child >> nth=0");
seen.opened = await texts("#turns .user > .text");
await page.click("#history summary");
await page.getByRole("button", { name: /^Delete think/ }).click();
seen.historyShown = await page.isVisible("#history");
seen.stored = await page.evaluate(() => localStorage.getItem("triune.chats"));
console.log(JSON.stringify(seen));
await visit.browser.close();
