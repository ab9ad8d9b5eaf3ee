const USAGE = `
normalize.ts: recorded frames on stdin become rows on stdout. The pure core of the collector, without sockets or clock.

Usage:   npx tsx scripts/normalize.ts --exchange NAME [--market-type T] [--book-interval 10s]
Example: echo '{"received":1723161255400,"frame":{"e":"trade","s":"BTCUSDT","t":1,"p":"1.5","q":"2","T":1723161255342,"m":true}}' \\
           | npx tsx scripts/normalize.ts --exchange binance_spot

Input, one JSON object a line:
  {"received": <ms>, "frame": <the WebSocket message, as JSON or as a string>}
  {"received": <ms>, "rest": "<path?query>", "body": <the JSON answer>}      (depth snapshots, instrument lists)

Flags:
  --exchange NAME       binance_spot, binance_derivatives
  --market-type T       spot, perpetual, futures, options: of instruments that only their id tells of
  --book-interval TIME  venue time between two orderbook rows (default 10s; 0: a row per applied update)

Output: a row per line with "type" added. A line that cannot be read, or a frame that is not sound, is told on stderr with its
line number, and makes the exit code 1; all other lines are processed all the same.
`;

import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { exchangeModule } from './exchanges/index.ts';
import { duration, flags, runAsScript, UsageError } from './lib/cli.ts';
import type { Feed, FeedOutput } from './lib/exchange.ts';
import { memberText } from './lib/json_text.ts';
import { type DataType, encodeRow, MARKET_TYPES, type MarketType, type Rows } from './lib/rows.ts';
import { record } from './lib/wire.ts';

/** Where rows go, as lines without newline; `fault` is told of a frame or line of which no row could come. */
export interface NormalizeSink {
  line(text: string): void;
  fault(reason: string): void;
}

/** Feeds one input line to `feed`. Never throws: whatever is wrong with the line goes to `sink.fault`. */
export function normalizeLine(feed: Feed, line: string, sink: NormalizeSink): void {
  const out: FeedOutput = {
    row<T extends DataType>(type: T, row: Rows[T]) {
      sink.line(`{"type":"${type}",${encodeRow(type, row).slice(1)}`);
    },
    event(event) {
      if (event.kind === 'rejected') sink.fault(event.reason);
    },
  };
  try {
    const input = record(JSON.parse(line), 'line');
    if (typeof input.received !== 'number') throw new Error('"received" (ms) is missing');
    const receivedAt = Math.round(input.received * 1000);
    if (typeof input.rest === 'string') feed.rest(input.rest, input.body, receivedAt, out);
    else if (input.frame !== undefined) {
      // As it is written: ids longer than a double holds would be rounded by parsing.
      feed.frame(typeof input.frame === 'string' ? input.frame : memberText(line, 'frame')!, receivedAt, out);
    } else throw new Error('neither "frame" nor "rest"');
  } catch (error) {
    sink.fault((error as Error).message);
  }
}

async function main(): Promise<number> {
  const options = flags(USAGE, {
    exchange: { type: 'string' },
    'market-type': { type: 'string' },
    'book-interval': { type: 'string', default: '10s' },
  });
  if (!options.exchange) throw new UsageError('--exchange NAME is missing (--help tells more)');
  const marketType = options['market-type'];
  if (marketType !== undefined && !(MARKET_TYPES as readonly string[]).includes(marketType)) {
    throw new UsageError(`--market-type takes ${MARKET_TYPES.join(', ')}, not "${marketType}"`);
  }
  const feed = exchangeModule(options.exchange).createFeed({
    instruments: [],
    dataSource: 'live',
    orderbookIntervalMs: duration('--book-interval', options['book-interval']),
    ...(marketType === undefined ? {} : { marketType: marketType as MarketType }),
  });
  let number = 0;
  let faults = 0;
  let pending = '';
  const sink: NormalizeSink = {
    line: (text) => {
      pending += `${text}\n`;
    },
    fault: (reason) => {
      faults += 1;
      process.stderr.write(`line ${number}: ${reason}\n`);
    },
  };
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    number += 1;
    if (line.trim() !== '') normalizeLine(feed, line, sink);
    if (pending.length > 65_536) {
      if (!process.stdout.write(pending)) await once(process.stdout, 'drain');
      pending = '';
    }
  }
  process.stdout.write(pending);
  return faults === 0 ? 0 : 1;
}

runAsScript(import.meta.url, main);
