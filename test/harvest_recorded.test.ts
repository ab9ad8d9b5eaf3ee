/** Recorded sessions of Binance through the harvest: books against the venue's own best prices, flows against another way of computing, and the gates. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { exchangeModule } from '../scripts/exchanges/index.ts';
import { HarvestCore } from '../scripts/lib/harvest/core.ts';
import { harvestInput } from '../scripts/lib/harvest/input.ts';
import { type HarvestRow, placePath } from '../scripts/lib/harvest/kinds.ts';
import { validate } from '../scripts/lib/harvest/validate.ts';
import { JsonlWriter } from '../scripts/lib/jsonl.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { normalizeLine } from '../scripts/normalize.ts';
import { missing, SHARED } from './fixtures.ts';

const SESSIONS = [
  {
    exchange: 'binance_spot',
    file: 'binance-spot/btcusdt_20240808.gz',
    depth: '/api/v3/depth?symbol=BTCUSDT&limit=1000',
    compared: 564,
    trades: 9757,
  },
  {
    exchange: 'binance_derivatives',
    file: 'binance-usdm/ethusdt_20240808.gz',
    depth: '/fapi/v1/depth?symbol=ETHUSDT&limit=1000',
    compared: 551,
    trades: 14_076,
  },
] as const;

interface Ticker {
  u: number;
  b: string;
  B: string;
  a: string;
  A: string;
}

/** Its lines as normalize.ts takes them, and what the venue says of its best prices. */
function recorded(file: string, depth: string): { lines: string[]; tickers: Map<number, Ticker> } {
  const lines: string[] = [];
  const tickers = new Map<number, Ticker>();
  const text = gunzipSync(readFileSync(join(SHARED, 'hftbacktest', file))).toString();
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const space = line.indexOf(' ');
    const received = Number(BigInt(line.slice(0, space)) / 1000n) / 1000;
    const raw = line.slice(space + 1);
    const frame = JSON.parse(raw) as { stream?: string; data?: Ticker; lastUpdateId?: number };
    if (frame.stream?.endsWith('@bookTicker')) tickers.set(frame.data!.u, frame.data!);
    else if (frame.stream === undefined && frame.lastUpdateId !== undefined)
      lines.push(`{"received":${received},"rest":"${depth}","body":${raw}}`);
    else lines.push(`{"received":${received},"frame":${raw}}`);
  }
  return { lines, tickers };
}

function harvestOf(exchange: string, lines: readonly string[]): HarvestRow[] {
  const rows: HarvestRow[] = [];
  const core = new HarvestCore((row) => rows.push(row));
  const feed = exchangeModule(exchange).createFeed({
    instruments: [],
    dataSource: 'live',
    orderbookIntervalMs: 10_000,
  });
  const sink = {
    line(text: string) {
      const { type, ...row } = JSON.parse(text) as { type: string };
      const input = harvestInput(type, row);
      if (input !== null) core.take(input);
    },
    fault: () => undefined,
  };
  for (const line of lines) normalizeLine(feed, line, sink);
  core.end();
  return rows;
}

type Levels = { p: number; q: number }[];
const levelsOf = (row: HarvestRow, side: 'bid' | 'ask'): Levels =>
  [1, 2, 3, 4, 5].map((i) => ({ p: Number(row[`${side}${i}_p`]), q: Number(row[`${side}${i}_q`]) }));

/** By cases of the price, not by indicators: what a level gained or lost. */
function gained(now: { p: number; q: number }, before: { p: number; q: number }, better: 1 | -1): number {
  const move = (now.p - before.p) * better;
  return move > 0 ? now.q : move < 0 ? -before.q : now.q - before.q;
}

for (const { exchange, file, depth, compared, trades } of SESSIONS) {
  const path = join(SHARED, 'hftbacktest', file);
  test(`a recorded session of ${exchange}: books, flows, sums and gates`, {
    skip: existsSync(path) ? false : missing(path),
  }, async () => {
    const { lines, tickers } = recorded(file, depth);
    const rows = harvestOf(exchange, lines);
    const books = rows.filter(({ kind }) => kind === 'orderbook');

    // The venue's own best prices, at the same update.
    let same = 0;
    for (const book of books) {
      const ticker = tickers.get(book.last_id as number);
      if (ticker === undefined) continue;
      const own = [book.bid1_p, book.bid1_q, book.ask1_p, book.ask1_q].map(Number);
      assert.deepEqual(own, [ticker.b, ticker.B, ticker.a, ticker.A].map(Number), `update ${ticker.u}`);
      same += 1;
    }
    assert.ok(same > compared * 0.8, `${same} books compared`);

    // Every flow again, from the levels in the rows before and after.
    const byId = new Map(books.map((book, i) => [`${book.ts_ms} ${book.last_id}`, i]));
    const flows = rows.filter(({ kind }) => kind === 'ofi');
    const ofBook = books.filter(({ d_b0 }) => d_b0 !== null);
    assert.equal(flows.length, ofBook.length);
    for (const [i, book] of ofBook.entries()) {
      const before = books[byId.get(`${book.ts_ms} ${book.last_id}`)! - 1]!;
      const [bids, asks, bidsBefore, asksBefore] = [
        levelsOf(book, 'bid'),
        levelsOf(book, 'ask'),
        levelsOf(before, 'bid'),
        levelsOf(before, 'ask'),
      ];
      const expected = [0.4, 0.25, 0.2, 0.1, 0.05].reduce(
        (sum, weight, k) => sum + weight * (gained(bids[k]!, bidsBefore[k]!, 1) - gained(asks[k]!, asksBefore[k]!, -1)),
        0,
      );
      assert.ok(Math.abs((flows[i]!.ofi_value as number) - expected) < 1e-9, `flow ${i}`);
    }

    // Every trade, and their sum to the last digit.
    const cvd = rows.filter(({ kind }) => kind === 'cvd');
    const prices = rows.filter(({ kind }) => kind === 'prices');
    assert.deepEqual([prices.length, cvd.length], [trades, trades]);
    const sum = prices.reduce((total, { qty, is_buyer_maker }) => {
      const units = BigInt(Math.round(Number(qty) * 1e8));
      return total + (is_buyer_maker ? -units : units);
    }, 0n);
    assert.equal(BigInt(Math.round(Number(cvd.at(-1)!.cvd) * 1e8)), sum);
    assert.equal(rows.filter(({ trigger_by }) => trigger_by === 'missing_trades').length, 0);

    const root = mkdtempSync(join(tmpdir(), 'marketprism-harvest-'));
    try {
      const log = createLogger('test', 'silent');
      const files = new Map<string, HarvestRow[]>();
      for (const row of rows) {
        const name = `${placePath(row)}.jsonl`;
        files.set(name, [...(files.get(name) ?? []), row]);
        if (files.get(name)!.length >= 500) flush(name);
      }
      for (const name of files.keys()) flush(name);
      function flush(name: string): void {
        const writer = new JsonlWriter(join(root, name), log);
        writer.append(files.get(name)!);
        writer.close();
        files.set(name, []);
      }
      const { all, status } = await validate({ root, now: Date.now() });
      const gates = Object.fromEntries(
        all.gates.map(({ gate, status: judged, value }) => [gate, `${judged} ${value}`]),
      );
      process.stdout.write(`${exchange}: ${status}, gates ${JSON.stringify(gates)}\n`);
      // The recorder's clock was behind the venue's: latencies are not known, and not made up.
      assert.deepEqual(
        { ...gates, empty_minutes: gates.empty_minutes, duplicates: gates.duplicates, latency_p50: gates.latency_p50 },
        { ...gates, empty_minutes: 'passed 0', duplicates: 'passed 0', latency_p50: 'not_judged null' },
      );
    } finally {
      rmSync(root, { recursive: true });
    }
  });
}
