const USAGE = `
ofi_cvd_harvester.ts: microstructure of one exchange, from its trades and books: order flow imbalance, volume delta, both as one score, events, features.

Usage:   npx tsx scripts/ofi_cvd_harvester.ts [--exchange NAME] [--symbol S] [--once]
         npx tsx scripts/ofi_cvd_harvester.ts --stdin < rows.ndjson
Example: tail -F data/harvest/date=2026-11-30/hour=08/symbol=BTC-USDT/kind=events.jsonl
         npx tsx scripts/normalize.ts --exchange binance_derivatives < frames.ndjson | npx tsx scripts/ofi_cvd_harvester.ts --stdin

It reads trades and books from JetStream through durables of its own, and writes rows of seven kinds (prices, orderbook, ofi, cvd, fusion, events,
features) to DATA/harvest/date=…/hour=…/symbol=…/kind=….jsonl (another exchange's than binance_derivatives: DATA/harvest-NAME), and the derived
ones into marketprism_signals. Everything is by event time: the same input gives the same bytes. Killed at any moment it goes on from its last
checkpoint, and nothing is missing or twice.

Flags:
  --exchange NAME  whose markets (default binance_derivatives); a process each
  --symbol S       only this market, such as BTC-USDT
  --once           reads what is in the streams, saves it, and ends
  --stdin          rows of normalize.ts in, rows with "kind" out; no clock, no broker, no database

Environment: MARKETPRISM_NATS_URL, CLICKHOUSE_URL, MARKETPRISM_SIGNALS_DATABASE, MARKETPRISM_DATA_DIR, MARKETPRISM_MODE, SAVE_CONCURRENCY (2),
MARKETPRISM_WATERMARK_<KIND>=high,emergency, MARKETPRISM_HARVEST_CHECKPOINT (60s), MARKETPRISM_HARVEST_DAYS (3), LOG_LEVEL.
`;

import { z } from 'zod';
import { flags, runAsScript, UsageError } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import { transformStdin } from './lib/desk/stdin.ts';
import { HarvestCore } from './lib/harvest/core.ts';
import { harvestInput } from './lib/harvest/input.ts';
import type { HarvestRow } from './lib/harvest/kinds.ts';
import { HarvestService } from './lib/harvest/service.ts';
import { createLogger } from './lib/log.ts';
import { EXCHANGES, type Exchange } from './lib/rows.ts';
import { untilStopped } from './lib/service.ts';

const LINE = z.looseObject({ type: z.string() });

/** The pure core on standard input and output. */
function harvestStdin(): Promise<number> {
  let rows: HarvestRow[] = [];
  const core = new HarvestCore((row) => rows.push(row));
  const told = () => {
    const out = rows;
    rows = [];
    return out;
  };
  return transformStdin(
    LINE,
    (line) => {
      const input = harvestInput(line.type, line);
      if (input !== null) core.take(input);
      return told();
    },
    () => {
      core.end();
      return told();
    },
  );
}

async function harvest(exchange: Exchange, symbol: string | undefined, once: boolean): Promise<number> {
  const config = loadConfig();
  const log = createLogger('ofi_cvd_harvester');
  const stop = new AbortController();
  const stopped = untilStopped(log).then(() => stop.abort());
  const symbols = symbol === undefined ? null : new Set([symbol]);
  const service = await HarvestService.open({ config, exchange, log, symbols, stop: stop.signal });
  log.info({ event: 'started', exchange });
  await service.run(once);
  await service.close();
  if (!once) await stopped;
  log.info({ event: 'stopped' });
  return 0;
}

async function main(): Promise<number> {
  const options = flags(USAGE, {
    exchange: { type: 'string', default: 'binance_derivatives' },
    symbol: { type: 'string' },
    once: { type: 'boolean', default: false },
    stdin: { type: 'boolean', default: false },
  });
  if (options.stdin) return harvestStdin();
  const exchange = options.exchange as Exchange;
  if (!EXCHANGES.includes(exchange))
    throw new UsageError(`--exchange takes one of ${EXCHANGES.join(', ')}, not "${options.exchange}"`);
  return harvest(exchange, options.symbol, options.once);
}

runAsScript(import.meta.url, main);
