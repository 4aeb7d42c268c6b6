// The flows of the studio in a real browser. Prints one JSON line a flow: {flow, ok, error, facts, ms}.
//   node e2e/flows.mjs ADDRESS CHROMIUM SHOTS [TOKEN_ADDRESS TOKEN] [--only FLOW]
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const words = process.argv.slice(2);
const at = words.indexOf("--only");
const only = at >= 0 ? words.splice(at, 2)[1].split(",") : null;
const [address, browserPath, shots, tokenAddress, token] = words;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(shots, { recursive: true });

const PAGES = { slate: "#/", compare: "#/compare", funnel: "#/funnel", map: "#/map", data: "#/data", runs: "#/runs" };
const READY = { slate: ".tile .picture img", compare: ".side .list li", funnel: ".window li", map: ".map-chart circle", data: ".tiles", runs: ".figures" };
const WIDE = { width: 1360, height: 900 };
const PHONE = { width: 390, height: 844 };

const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"] });
let failed = 0;

async function open(page = "slate", { view = WIDE, scheme = "light", base = address, wait = true } = {}) {
  const context = await browser.newContext({ viewport: view, colorScheme: scheme, reducedMotion: "reduce" });
  const tab = await context.newPage();
  tab.setDefaultTimeout(30_000);
  tab.trouble = [];
  tab.on("console", (message) => message.type() === "error" && !/status of 40[14]/.test(message.text()) && tab.trouble.push(message.text()));
  tab.on("pageerror", (error) => tab.trouble.push(String(error)));
  tab.on("request", (request) => !request.url().startsWith(base) && !/^(data|blob):/.test(request.url()) && tab.trouble.push(`asked ${request.url()}`));
  await tab.goto(`${base}/studio/${PAGES[page]}`);
  if (wait) await tab.waitForSelector(READY[page]);
  return tab;
}

async function settled(tab) {
  await tab.waitForFunction(() => [...document.querySelectorAll(".tile .picture img, .thumb .picture img, .list .picture img, .mini img")].every((image) => image.complete || image.loading === "lazy"));
}

async function shot(tab, name) {
  await settled(tab);
  await tab.screenshot({ path: join(shots, `${name}.png`) });
}

const titles = (tab) => tab.locator(".tile-title").allTextContents();
const titlesNot = (tab, before) => tab.waitForFunction((had) => {
  const now = [...document.querySelectorAll(".tile-title")].map((one) => one.textContent);
  return now.length > 0 && JSON.stringify(now) !== had;
}, JSON.stringify(before));
const loaded = (tab, selector) => tab.waitForFunction((one) => {
  const images = [...document.querySelectorAll(one)];
  return images.length > 0 && images.slice(0, 6).every((image) => image.naturalWidth > 0);
}, selector);

async function flow(name, act) {
  if (only !== null && !only.includes(name)) return;
  const began = performance.now();
  let ok = true;
  let error = null;
  let facts = {};
  let tab;
  try {
    tab = await act((opened) => opened, (told) => { facts = told; });
    if (tab) assert.deepEqual(tab.trouble, [], "the page complained");
  } catch (thrown) {
    ok = false;
    failed += 1;
    error = String(thrown?.stack ?? thrown).slice(0, 1500);
    const last = browser.contexts().at(-1)?.pages().at(-1);
    await last?.screenshot({ path: join(shots, `failed-${name}.png`) }).catch(() => undefined);
  }
  for (const context of browser.contexts()) await context.close();
  console.log(JSON.stringify({ flow: name, ok, error, facts, ms: Math.round(performance.now() - began) }));
}

await flow("person", async () => {
  const tab = await open();
  await loaded(tab, ".thumb img");
  const other = (await tab.locator(".people .chip").nth(3).textContent()).trim().split(/\s+/)[0];
  const before = await titles(tab);
  await tab.getByLabel("User", { exact: true }).fill(other);
  await tab.keyboard.press("Enter");
  await titlesNot(tab, before);
  await loaded(tab, ".thumb img");
  assert.ok((await tab.locator(".thumb").count()) >= 5, "the history is shown as pictures");
  await tab.getByRole("button", { name: "Invented" }).click();
  await tab.getByText("Nothing yet. Pick something").waitFor();
  await tab.getByText("Nothing personal is known yet").waitFor();
  return tab;
});

await flow("slate", async () => {
  const tab = await open();
  await loaded(tab, ".tile img");
  assert.equal(await tab.locator(".tile").count(), 12);
  assert.match(await tab.locator(".tile .price").first().textContent(), /^\d[\d,]*\.\d\d$/);
  await shot(tab, "slate-wide-light");
  await tab.locator(".tile-open").nth(2).click();
  const why = tab.locator(".why");
  await why.getByRole("heading", { name: "Found by" }).waitFor();
  assert.ok((await why.locator("table tbody tr").count()) >= 1);
  await why.getByText(/What sasrec read of the history/).waitFor();
  await why.getByText(/Similarity of item-knn/).waitFor();
  await why.getByRole("heading", { name: "In common with the history" }).waitFor();
  assert.ok((await why.locator(".carried li").count()) >= 4);
  await loaded(tab, ".carried img");
  await shot(tab, "why-wide-light");
  return tab;
});

await flow("dials", async () => {
  const tab = await open();
  const first = await titles(tab);
  const dial = tab.getByLabel("Diversity", { exact: true });
  await dial.focus();
  await tab.keyboard.press("End");
  await titlesNot(tab, first);
  await tab.locator(".move").first().waitFor();
  const spread = await titles(tab);
  await shot(tab, "dials-wide-light");
  await tab.getByRole("button", { name: "reset" }).click();
  await titlesNot(tab, spread);
  assert.deepEqual(await titles(tab), first, "back at the file's setting");
  await tab.getByLabel("Exploration", { exact: true }).focus();
  await tab.keyboard.press("End");
  await titlesNot(tab, first);
  const drawn = await titles(tab);
  await tab.getByRole("button", { name: "Draw again" }).click();
  await titlesNot(tab, drawn);
  await tab.locator(".tile-open").first().click();
  await tab.getByText(/with a chance of/).waitFor();
  return tab;
});

await flow("compare", async () => {
  const tab = await open("compare");
  const offer = tab.getByRole("button", { name: "Load item-knn" });
  if (await offer.count()) {
    await offer.click();
    await offer.waitFor({ state: "detached" });
  }
  await tab.getByLabel("Second model", { exact: true }).selectOption("item-knn");
  await tab.waitForFunction(() => document.querySelectorAll(".side")[1]?.querySelectorAll("li").length === 12 && document.querySelector(".lead b"));
  const left = await tab.locator(".side").nth(0).locator(".list-title").allTextContents();
  await tab.waitForFunction((had) => JSON.stringify([...document.querySelectorAll(".side:nth-child(2) .list-title")].map((one) => one.textContent)) !== had, JSON.stringify(left));
  assert.match(await tab.locator(".lead").textContent(), /\d+ of 12/);
  await loaded(tab, ".list img");
  await shot(tab, "compare-wide-light");
  return tab;
});

await flow("funnel", async () => {
  const tab = await open("funnel");
  const names = await tab.locator(".window-name h3").allTextContents();
  for (const name of ["Catalogue", "Retrieve", "Fuse", "Arrange", "Slate"]) assert.ok(names.includes(name), `${name} is shown`);
  const counts = (await tab.locator(".window-count b").allTextContents()).map((text) => Number(text.replaceAll(",", "")));
  assert.ok(counts[0] > counts.at(-1) && counts.at(-1) === 12);
  assert.match(await tab.locator(".window-count").allTextContents().then((all) => all.join(" ")), /\d ms/);
  await loaded(tab, ".mini img");
  await shot(tab, "funnel-wide-light");
  return tab;
});

await flow("map", async () => {
  const tab = await open("map");
  const points = tab.locator(".map-chart circle");
  const count = await points.count();
  assert.ok(count > 50);
  // what is under the pointer is told, wherever the square stands in its room
  const last = await points.nth(count - 1).boundingBox();
  await tab.mouse.move(last.x + last.width / 2, last.y + last.height / 2);
  await tab.locator(".map-side h2").waitFor();
  await tab.locator(".map-side .picture img").waitFor();
  const before = await tab.locator(".map-side h2").textContent();
  await tab.locator(".map-chart").focus();
  await tab.keyboard.press("ArrowRight");
  await tab.waitForFunction((had) => document.querySelector(".map-side h2")?.textContent !== had, before);
  await tab.locator(".map-legend button").first().click();
  assert.ok((await points.count()) < count, "a category is taken off");
  await tab.screenshot({ path: join(shots, "map-wide-light.png"), fullPage: true });
  return tab;
});

await flow("data", async () => {
  const tab = await open("data");
  assert.ok((await tab.locator("svg.chart rect").count()) > 10);
  for (const name of ["Events per user", "Events per item", "Popularity", "Over time", "category", "price"]) await tab.getByRole("heading", { name, exact: true }).waitFor();
  await tab.screenshot({ path: join(shots, "data-wide-light.png"), fullPage: true });
  return tab;
});

await flow("runs", async () => {
  const tab = await open("runs");
  await tab.getByRole("heading", { name: "Curves" }).waitFor();
  assert.ok((await tab.locator(".one-chart path").count()) >= 1);
  await tab.getByRole("heading", { name: /^Comparison/ }).first().waitFor();
  assert.ok((await tab.locator("svg.interval .reach").count()) >= 2, "intervals are drawn");
  const cell = () => tab.locator(".figures tbody td").first().textContent();
  const before = await cell();
  await tab.getByLabel("Metric").first().selectOption({ index: 1 });
  await tab.waitForFunction((had) => document.querySelector(".figures tbody td").textContent !== had, before);
  await tab.screenshot({ path: join(shots, "runs-wide-light.png"), fullPage: true });
  return tab;
});

await flow("add", async () => {
  const tab = await open();
  await tab.getByRole("button", { name: "Invented" }).click();
  await tab.getByText("Nothing personal is known yet").waitFor();
  const popular = await titles(tab);
  await tab.getByPlaceholder("Search the catalogue").fill("red");
  await tab.locator(".found-item").first().click();
  await tab.locator(".thumb.fresh").first().waitFor();
  await titlesNot(tab, popular);
  await tab.getByText("Nothing personal is known yet").waitFor({ state: "detached" });
  const second = await titles(tab);
  await tab.locator(".tile .add").nth(1).click();
  await titlesNot(tab, second);
  assert.equal(await tab.locator(".thumb.fresh").count(), 2);
  await loaded(tab, ".thumb.fresh img");
  await shot(tab, "add-wide-light");
  const third = await titles(tab);
  await tab.getByRole("button", { name: /^Take .* out of the history$/ }).first().click();
  await titlesNot(tab, third);
  await tab.getByRole("button", { name: "Someone known" }).click();
  await tab.locator(".thumb").first().waitFor();
  await tab.getByLabel("Tell the service of my clicks").check();
  const personal = await titles(tab);
  const sent = tab.waitForResponse((answer) => answer.url().endsWith("/events"));
  await tab.locator(".tile .add").first().click();
  assert.equal((await (await sent).json()).new, 1);
  await tab.getByText(/since the model was made/).waitFor();
  await titlesNot(tab, personal);
  return tab;
});

await flow("keyboard", async () => {
  const tab = await open();
  await tab.keyboard.press("Tab");
  assert.equal(await tab.evaluate(() => document.activeElement.className), "skip");
  const seen = new Set();
  let bare = "";
  for (let n = 0; n < 60; n += 1) {
    await tab.keyboard.press("Tab");
    const told = await tab.evaluate(() => {
      const one = document.activeElement;
      const style = getComputedStyle(one);
      return { kind: one.className || one.tagName, visible: style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) > 0 };
    });
    if (!told.visible && told.kind !== "BODY") bare ||= told.kind;
    seen.add(String(told.kind));
  }
  assert.equal(bare, "", "everything that has the focus shows it");
  for (const kind of ["tile-open", "add", "brand", "strip-list"]) assert.ok(seen.has(kind), `${kind} is reached by Tab`);
  await tab.locator(".tile-open").first().focus();
  await tab.keyboard.press("Enter");
  await tab.locator(".why h2").waitFor();
  await tab.keyboard.press("Escape");
  await tab.locator(".why").waitFor({ state: "detached" });
  const before = await titles(tab);
  await tab.getByLabel("Diversity", { exact: true }).focus();
  for (let n = 0; n < 12; n += 1) await tab.keyboard.press("ArrowRight");
  await titlesNot(tab, before);
  await tab.getByRole("link", { name: "Funnel" }).focus();
  await tab.keyboard.press("Enter");
  await tab.waitForSelector(READY.funnel);
  return tab;
});

async function go(tab, name) {
  await tab.evaluate((hash) => { window.location.hash = hash; }, PAGES[name]);
  await tab.waitForSelector(READY[name]);
}

await flow("phone", async () => {
  const tab = await open("slate", { view: PHONE });
  for (const name of Object.keys(PAGES)) {
    await go(tab, name);
    const wide = await tab.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 390, `${name} is ${wide} px wide on a phone of 390`);
    await shot(tab, `${name}-phone-light`);
  }
  await go(tab, "slate");
  await tab.locator(".tile-open").first().click();
  await tab.locator(".why h2").waitFor();
  await shot(tab, "why-phone-light");
  return tab;
});

await flow("dark", async () => {
  const tab = await open("slate", { scheme: "dark" });
  assert.notEqual(await tab.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(250, 249, 247)");
  await tab.locator(".tile-open").first().click();
  for (const name of Object.keys(PAGES)) {
    await go(tab, name);
    await shot(tab, `${name}-wide-dark`);
  }
  await tab.setViewportSize(PHONE);
  await go(tab, "slate");
  await shot(tab, "slate-phone-dark");
  return tab;
});

await flow("accessible", async () => {
  const tab = await open("slate");
  const found = [];
  await tab.evaluate(axe);
  for (const scheme of ["light", "dark"]) {
    await tab.emulateMedia({ colorScheme: scheme });
    for (const name of Object.keys(PAGES)) {
      await go(tab, name);
      if (name === "slate") {
        await tab.locator(".tile-open").first().click();
        await tab.locator(".why h2").waitFor();
      }
      // in the dark only colours are others
      const only = scheme === "dark" ? { runOnly: { type: "rule", values: ["color-contrast"] } } : {};
      const told = await tab.evaluate((more) => globalThis.axe.run(document, { resultTypes: ["violations"], ...more }), only);
      for (const one of told.violations) if (["serious", "critical"].includes(one.impact)) found.push(`${name} ${scheme}: ${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 120)).join(" | ")}`);
    }
  }
  assert.deepEqual(found, []);
  return tab;
});

await flow("token", async (_, tell) => {
  if (!tokenAddress) return tell({ skipped: "no address with a token" });
  const tab = await open("slate", { base: tokenAddress, wait: false });
  await tab.getByLabel("Token").fill("wrong");
  await tab.keyboard.press("Enter");
  await tab.getByLabel("Token").fill(token);
  await tab.keyboard.press("Enter");
  await loaded(tab, ".tile img");
  assert.match(await tab.locator(".tile img").first().getAttribute("src"), /^blob:/);
  assert.equal(await tab.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0, "a token is kept in memory only");
  return tab;
});

await flow("load", async (_, tell) => {
  const tab = await open("slate");
  const warm = await browser.newContext({ viewport: WIDE });
  const second = await warm.newPage();
  const began = performance.now();
  await second.goto(`${address}/studio/`);
  await second.waitForSelector(".tile");
  const shown = Math.round(performance.now() - began);
  const timing = await second.evaluate(() => {
    const [page] = performance.getEntriesByType("navigation");
    const bytes = performance.getEntriesByType("resource").filter((one) => /assets/.test(one.name)).reduce((sum, one) => sum + one.transferSize, 0);
    return { domReady: Math.round(page.domContentLoadedEventEnd), load: Math.round(page.loadEventEnd), bytes };
  });
  tell({ slate_shown_ms: shown, ...timing });
  return tab;
});

await browser.close();
process.exitCode = failed > 0 ? 1 : 0;
