/**
 * Run inside a booted machine (systemd.boot.ts) whose demo is at work: stops the simulated markets, waits until all is stored, filled and copied, and
 * prints the ledger of everything since the demo began, as JSON. Usage: node --import tsx test/booted_ledger.ts CONTROL
 */
import { createClickHouse } from '../scripts/lib/clickhouse.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { unacknowledged } from '../scripts/lib/durables.ts';
import { connectNats } from '../scripts/lib/jetstream.ts';
import {
  balance,
  countGaps,
  countInGaps,
  countStored,
  gapsOfUnknownSize,
  ledgerKey,
  type Stored,
} from '../scripts/lib/ledger.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { pause } from '../scripts/lib/pause.ts';

const LIMIT_MS = 240_000;
/** From the beginning of both streams. */
const BASES = { MARKET_DATA: 0, ORDERBOOK_SNAP: 0 };

interface StoreHealth {
  checks: { gaps: { details?: { counts?: { status: string; gaps: number }[]; looks?: number; lastFound?: number } } };
}

async function json<T>(url: string): Promise<T> {
  return (await (await fetch(url)).json()) as T;
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + LIMIT_MS; !(await isSo()); await pause(500))
    if (Date.now() > deadline) throw new Error(`${what}: not within ${LIMIT_MS / 1000} s`);
}

function total(counts: Map<string, Stored>): number {
  return [...counts.values()].reduce((sum, { count }) => sum + count, 0);
}

const [control] = process.argv.slice(2);
const config = loadConfig();
const client = createClickHouse(
  { url: config.clickhouseUrl, username: config.clickhouseUser, password: config.clickhousePassword },
  'booted-ledger',
);
const nats = await connectNats(config.natsUrl, 'booted-ledger', createLogger('ledger', 'silent'));
const manager = await nats.jetstreamManager();
await fetch(`${control}/control`, { method: 'POST', body: JSON.stringify({ action: 'stop' }) });
const health = `http://127.0.0.1:${config.healthPort}/health`;
const collector = () => json<{ metrics: { waiting_bytes: number } }>(health);
await until('what the collector holds is published', async () => (await collector()).metrics.waiting_bytes === 0);
await until('what was published is stored', async () => (await unacknowledged(manager)) === 0);
const gaps = async () => {
  const store = await json<StoreHealth>(`http://127.0.0.1:${config.storePort}/health`);
  const { counts = [], looks = 0, lastFound = 0 } = store.checks.gaps.details ?? {};
  return { open: counts.find(({ status }) => status === 'open')?.gaps ?? 0, looks, lastFound };
};
// A hole is a gap once the row after it is old enough; then two whole looks.
await pause(config.gapAgeMs + 2000);
const { looks } = await gaps();
await until('gaps are found and filled', async () => {
  const now = await gaps();
  return now.looks >= looks + 2 && now.open === 0 && now.lastFound === 0;
});
await until('what was filled is stored', async () => (await unacknowledged(manager)) === 0);
const [hot, cold] = [config.hotDatabase, config.coldDatabase];
await until('cold has what hot has', async () => {
  const [one, other] = [await countStored(client, hot, BASES), await countStored(client, cold, BASES)];
  return total(one) > 0 && total(one) === total(other);
});
const { streams } = await json<{ streams: { exchange: string; data_type: string; sent: number }[] }>(
  `${control}/ledger`,
);
const sent = new Map<string, number>();
for (const each of streams) {
  const key = ledgerKey(each.exchange, each.data_type);
  sent.set(key, (sent.get(key) ?? 0) + each.sent);
}
const missing = await countGaps(client, hot, 0);
for (const stream of await gapsOfUnknownSize(client, hot, 0)) {
  const { exchange, symbol, data_type } = stream;
  const query = new URLSearchParams({ exchange, symbol, data_type });
  const lines = (await (await fetch(`${control}/ledger/keys?${query}`)).text()).trimEnd().split('\n');
  const keys = lines.filter((line) => /^(\w\S*\|)?\d+$/.test(line));
  const key = ledgerKey(exchange, data_type);
  missing.set(key, (missing.get(key) ?? 0) + (await countInGaps(client, hot, stream, keys)));
}
const stored = await countStored(client, hot, BASES);
const nothing = new Map<string, number>();
const figures = { received: nothing, published: nothing, found: nothing, stored, gaps: missing, sent };
const report = balance('demo', 0, { ...figures, cold: await countStored(client, cold, BASES) });
const sum = (counts: Iterable<number>) => [...counts].reduce((all, each) => all + each, 0);
const totals = { sent: sum(sent.values()), stored: total(stored), missing: sum(missing.values()) };
process.stdout.write(`${JSON.stringify({ ...totals, ...report })}\n`);
await Promise.all([nats.close(), client.close()]);
