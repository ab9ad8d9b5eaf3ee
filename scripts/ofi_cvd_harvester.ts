const USAGE = `
ofi_cvd_harvester.ts: microstructure of one exchange, from its trades and books: order flow imbalance, volume delta, both as one score, events, features.

Usage:   npx tsx scripts/ofi_cvd_harvester.ts [--exchange NAME] [--symbol S] [--once]
         npx tsx scripts/ofi_cvd_harvester.ts --validate | --export | --manifest [--from TIME] [--to TIME] [--symbol S] [--json]
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
  --validate       judges the files: empty minutes, duplicates, latency, events, seconds, manifests. Exit code: 0 no gate missed, 1 one missed,
                   2 duplicates or unreadable lines, 3 there is nothing to judge
  --export         makes a kind=K.parquet beside each kind=K.jsonl of hours that are over, through ClickHouse. Exit code: 0 all are there, 1 some
                   are not, 3 there is no such file, or no database
  --manifest       counts what the files of hours that are over hold, into ROOT/manifest (a running harvester does so by itself)
  --from, --to     hours of this time, such as 2026-11-30T08:00:00Z; --symbol: of this market (not with --manifest); --json: the answer as JSON
  --stdin          rows of normalize.ts in, rows with "kind" out; no clock, no broker, no database

Environment: MARKETPRISM_NATS_URL, CLICKHOUSE_URL, MARKETPRISM_SIGNALS_DATABASE, MARKETPRISM_DATA_DIR, MARKETPRISM_MODE, SAVE_CONCURRENCY (2),
MARKETPRISM_WATERMARK_<KIND>=high,emergency, MARKETPRISM_HARVEST_CHECKPOINT (60s), MARKETPRISM_HARVEST_DAYS (3), LOG_LEVEL.
`;

import { z } from 'zod';
import { flags, runAsScript, UsageError } from './lib/cli.ts';
import { createClickHouse, hotServer } from './lib/clickhouse.ts';
import { loadConfig } from './lib/config.ts';
import { transformStdin } from './lib/desk/stdin.ts';
import { HarvestCore } from './lib/harvest/core.ts';
import { runExport } from './lib/harvest/export.ts';
import { harvestInput } from './lib/harvest/input.ts';
import type { HarvestRow } from './lib/harvest/kinds.ts';
import { rootOf } from './lib/harvest/letters.ts';
import { runManifest } from './lib/harvest/manifest.ts';
import { HarvestService } from './lib/harvest/service.ts';
import type { SliceFlags } from './lib/harvest/slices.ts';
import { runValidate } from './lib/harvest/validate.ts';
import { createLogger } from './lib/log.ts';
import { EXCHANGES, type Exchange } from './lib/rows.ts';
import { untilStopped } from './lib/service.ts';
import { tellReady } from './lib/service_manager.ts';
import { Vital, type VitalPart } from './lib/vital_signs.ts';

/** A save of all that is in memory may wait for the database this long. */
const STUCK_MS = 600_000;

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
  // Up before broker and database are.
  const parts: VitalPart[] = [];
  tellReady(log, parts);
  const symbols = symbol === undefined ? null : new Set([symbol]);
  const service = await HarvestService.open({ config, exchange, log, symbols, stop: stop.signal });
  parts.push(new Vital('harvest', STUCK_MS));
  log.info({ event: 'started', exchange });
  await service.run(once);
  await service.close();
  if (!once) await stopped;
  log.info({ event: 'stopped' });
  return 0;
}

/** What looks at the files of a harvest, and ends. */
type Task = 'validate' | 'export' | 'manifest';
const TASKS: Task[] = ['validate', 'export', 'manifest'];

async function runTask(task: Task, exchange: Exchange, asked: SliceFlags): Promise<number> {
  const config = loadConfig();
  const place = { root: rootOf(config.dataDir, exchange), flags: asked, now: Date.now() };
  if (task === 'validate') return runValidate(place);
  if (task === 'manifest') return runManifest(place);
  const client = createClickHouse(hotServer(config), 'marketprism-harvest-export');
  try {
    return await runExport({ ...place, client, database: config.signalsDatabase });
  } finally {
    await client.close();
  }
}

async function main(): Promise<number> {
  const options = flags(USAGE, {
    exchange: { type: 'string', default: 'binance_derivatives' },
    symbol: { type: 'string' },
    once: { type: 'boolean', default: false },
    stdin: { type: 'boolean', default: false },
    validate: { type: 'boolean', default: false },
    export: { type: 'boolean', default: false },
    manifest: { type: 'boolean', default: false },
    from: { type: 'string' },
    to: { type: 'string' },
    json: { type: 'boolean', default: false },
  });
  const exchange = options.exchange as Exchange;
  if (!EXCHANGES.includes(exchange))
    throw new UsageError(`--exchange takes one of ${EXCHANGES.join(', ')}, not "${options.exchange}"`);
  const tasks = TASKS.filter((task) => options[task]);
  if (tasks.length + Number(options.stdin) + Number(options.once) > 1)
    throw new UsageError('--once, --stdin, --validate, --export and --manifest are one at a time');
  const [task] = tasks;
  const { from, to, symbol, json } = options;
  if (task !== undefined) return runTask(task, exchange, { from, to, symbol, json });
  if (from !== undefined || to !== undefined || json)
    throw new UsageError('--from, --to and --json belong to --validate, --export and --manifest');
  return options.stdin ? harvestStdin() : harvest(exchange, symbol, options.once);
}

runAsScript(import.meta.url, main);
