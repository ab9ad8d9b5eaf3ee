/// <reference lib="dom" />
/** The pages in a real Chromium: Debian's, driven without a screen. What a page says wrong in its console is kept, and is a failure. */
import assert from 'node:assert/strict';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';

/** A busy machine opens a page slowly; who waits for longer waits for nothing. */
const PATIENCE_MS = 60_000;
const CHROMIUM = '/usr/bin/chromium';
const WIDE = { width: 1280, height: 900 };
export const PHONE = { width: 375, height: 740 };

export interface Opened {
  page: Page;
  /** Errors of the console and of scripts, and requests that leave the machine. */
  faults: string[];
  close(): Promise<void>;
}

export interface ViewOptions {
  language?: 'en' | 'zh';
  theme?: 'dark' | 'light';
  zone?: 'local' | 'beijing';
  viewport?: { width: number; height: number };
  /** Answers that fail on purpose are told by the console, too: those that match are no fault. */
  allowed?: RegExp;
}

export async function startBrowser(): Promise<Browser> {
  // A test may run as root, for which Chromium has no sandbox; it sees our own pages only.
  return chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });
}

/** A page of its own, with nothing kept from others. The machine's zone is UTC. */
export async function openPage(browser: Browser, url: string, options: ViewOptions = {}): Promise<Opened> {
  const { language = 'en', theme = 'dark', zone = 'local', viewport = WIDE, allowed } = options;
  const context: BrowserContext = await browser.newContext({ viewport, timezoneId: 'UTC', locale: 'en-GB' });
  await context.addInitScript(
    ([key, value]) => {
      if (localStorage.getItem(key!) === null) localStorage.setItem(key!, value!);
    },
    ['marketprism', JSON.stringify({ language, theme, zone })],
  );
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const faults: string[] = [];
  const keep = (fault: string) => {
    if (allowed === undefined || !allowed.test(fault)) faults.push(fault);
  };
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') keep(`${message.text()} ${message.location().url}`);
  });
  page.on('pageerror', (error) => keep(`${error.message}\n${error.stack ?? ''}`));
  const { origin } = new URL(url);
  page.on('request', (request) => {
    if (!/^(?:data|blob):/.test(request.url()) && new URL(request.url()).origin !== origin)
      faults.push(`a request leaves the machine: ${request.url()}`);
  });
  await page.goto(url);
  return { page, faults, close: () => context.close() };
}

/** What a page shows as a figure of that name, once it is there; it may be the sign for unknown. */
export async function figureOf(page: Page, name: string): Promise<string> {
  const found = page.locator(`[data-figure="${name}"]`).first();
  await found.waitFor();
  return (await found.textContent()) ?? '';
}

/** A page as a whole may not be scrolled sideways: only tables within it. */
export async function assertNoSidewaysScroll(page: Page): Promise<void> {
  const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(inner! <= outer!, `the page is ${inner} px wide on a screen of ${outer}`);
}
