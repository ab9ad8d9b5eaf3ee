const USAGE = `
screenshots.ts: pictures of the pages for the README, from a service that runs.

Usage:   npx tsx test/screenshots.ts [FLAGS]
Example: npx tsx test/screenshots.ts --page / --page /market/BTC-USDT --width 375

Flags:
  --url URL       the service (default http://127.0.0.1:5000)
  --page PATH     which page; may be given again and again (default: all of the head's)
  --out FOLDER    where the PNG files go (default data/screenshots)
  --language L    en, zh (default en)
  --theme T       dark, light (default dark)
  --width N       of the window, px (default 1280)
  --height N      of the picture, px (default: as high as the page is)
  --settle TIME   so long for figures that come one after the other (default 3s)

Needs Debian's chromium, and fonts-noto-cjk for Chinese. Exit 1 when a page says an error in its console.
`;

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { duration, flags, runAsScript, UsageError, wholeNumber } from '../scripts/lib/cli.ts';
import { LANGUAGES, THEMES } from '../scripts/web/ui/choices.ts';
import { openPage, startBrowser } from './browser.ts';

const OPTIONS = {
  url: { type: 'string', default: 'http://127.0.0.1:5000' },
  page: { type: 'string', multiple: true },
  out: { type: 'string', default: join('data', 'screenshots') },
  language: { type: 'string', default: 'en' },
  theme: { type: 'string', default: 'dark' },
  width: { type: 'string', default: '1280' },
  height: { type: 'string' },
  settle: { type: 'string', default: '3s' },
} as const;

function oneOf<T extends string>(flag: string, choices: readonly T[], text: string): T {
  const found = choices.find((each) => each === text);
  if (found === undefined) throw new UsageError(`${flag} takes ${choices.join(' or ')}, not "${text}"`);
  return found;
}

/** `/market/BTC-USDT` is market-BTC-USDT, `/` overview. */
function nameOf(path: string): string {
  return path.replace(/^\/|\/$/g, '').replace(/[^\w-]+/g, '-') || 'overview';
}

async function main(): Promise<number> {
  const { url, page: pages, out, height: givenHeight, ...given } = flags(USAGE, OPTIONS);
  const width = wholeNumber('--width', given.width, 200, 4000);
  const height = givenHeight === undefined ? null : wholeNumber('--height', givenHeight, 200, 10_000);
  const language = oneOf('--language', LANGUAGES, given.language);
  const theme = oneOf('--theme', THEMES, given.theme);
  const settleMs = duration('--settle', given.settle);
  mkdirSync(out, { recursive: true });
  const browser = await startBrowser();
  let wrong = 0;
  try {
    const view = { language, theme, viewport: { width, height: height ?? 900 } };
    for (const path of pages ?? (await pagesOf(browser, url))) {
      const { page, faults, close } = await openPage(browser, url + path, view);
      await page.waitForTimeout(settleMs);
      const file = join(out, `${nameOf(path)}.png`);
      await page.screenshot({ path: file, fullPage: height === null });
      process.stdout.write(`${file}\n`);
      for (const fault of faults) process.stderr.write(`${path}: ${fault}\n`);
      wrong += faults.length;
      await close();
    }
  } finally {
    await browser.close();
  }
  return wrong === 0 ? 0 : 1;
}

/** Those that the head links to. */
async function pagesOf(browser: Awaited<ReturnType<typeof startBrowser>>, url: string): Promise<string[]> {
  const { page, close } = await openPage(browser, url);
  const links = page.locator('header nav a');
  await links.first().waitFor();
  const paths = await links.evaluateAll((all) => all.map((each) => each.getAttribute('href') ?? '/'));
  await close();
  return paths;
}

runAsScript(import.meta.url, main);
