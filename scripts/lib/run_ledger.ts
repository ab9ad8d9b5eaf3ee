/** The ledger of a run that has come to rest: what was sent, accepted, published and stored, counted at each place. */
import { join } from 'node:path';
import type { NatsConnection } from 'nats';
import { coldServer, createClickHouse, hotServer } from './clickhouse.ts';
import type { Config, Mode } from './config.ts';
import { readJson } from './files.ts';
import {
  balance,
  countFound,
  countGaps,
  countInGaps,
  countPublished,
  countStored,
  type DistinctPublished,
  distinctPublished,
  type GappedStream,
  gapsOfUnknownSize,
  type LedgerReport,
  ledgerKey,
  type Published,
} from './ledger.ts';
import type { DataType } from './rows.ts';
import type { StreamName } from './streams.ts';

export interface Run {
  mode: Mode;
  config: Config;
  /** ms since the epoch */
  startedAt: number;
  /** By stream: its last sequence when the run began. */
  bases: Record<StreamName, number>;
  /** What the simulator sent, by exchange and type; null: nobody knows. */
  sent: Map<string, number> | null;
  /** Distinct ids of a stream that were sent; null: nobody knows. */
  sentKeys: ((stream: GappedStream) => Promise<string[]>) | null;
}

/** @param seconds that the run took */
export async function drawLedger(run: Run, seconds: number, nats: NatsConnection): Promise<LedgerReport> {
  const { mode, config, bases, sent, sentKeys } = run;
  const { hotDatabase, coldDatabase } = config;
  const client = createClickHouse(hotServer(config), 'marketprism-up');
  const coldClient = createClickHouse(coldServer(config), 'marketprism-up');
  try {
    const streams = Object.keys(bases) as StreamName[];
    const published: Published = { rows: new Map(), byBoot: new Map() };
    for (const name of streams) await countPublished(nats, name, bases[name], published);
    const received = await receivedIn(run, nats, published);
    const stored = await countStored(client, hotDatabase, bases);
    const cold = await countStored(coldClient, coldDatabase, bases);
    const fewer = new Set([...received.keys()].filter((key) => received.get(key)! > (stored.get(key)?.unique ?? 0)));
    const found = new Map<string, number>();
    for (const name of fewer.size === 0 ? [] : streams) {
      const counts = await countFound(nats, client, hotDatabase, name, bases[name], fewer);
      for (const [key, count] of counts) found.set(key, count);
    }
    const gaps = await countGaps(client, hotDatabase, bases.MARKET_DATA);
    for (const stream of sentKeys === null ? [] : await gapsOfUnknownSize(client, hotDatabase, bases.MARKET_DATA)) {
      const key = ledgerKey(stream.exchange, stream.data_type);
      const count = await countInGaps(client, hotDatabase, stream, await sentKeys!(stream));
      gaps.set(key, (gaps.get(key) ?? 0) + count);
    }
    const figures = { received, published: published.rows, stored, cold, found, gaps, sent };
    return balance(mode, Math.round(seconds * 10) / 10, figures);
  } finally {
    await Promise.all([client.close(), coldClient.close()]);
  }
}

/** What the collector accepted in this run: its own count, and what earlier runs of it, which were killed, had published. */
async function receivedIn(
  { config, startedAt, bases }: Run,
  nats: NatsConnection,
  published: Published,
): Promise<Map<string, number>> {
  const report = readJson(join(config.dataDir, 'state', `collector-${config.collectorId}.json`)) as {
    boot: string;
    started: number;
    rows: { exchange: string; data_type: DataType; received: number }[];
  } | null;
  const current = report !== null && report.started >= startedAt ? report : null;
  const boot = current?.boot ?? '';
  const own = new Map(current?.rows.map((row) => [ledgerKey(row.exchange, row.data_type), row.received]));
  if ([...published.byBoot.keys()].every((each) => each === boot)) return own;
  // The same row may have been accepted before and after the kill: it counts once.
  const keys: DistinctPublished = { all: new Map(), ofBoot: new Map() };
  for (const name of Object.keys(bases) as StreamName[]) await distinctPublished(nats, name, bases[name], boot, keys);
  const out = new Map(own);
  for (const [key, all] of keys.all) {
    const unpublished = Math.max((own.get(key) ?? 0) - (keys.ofBoot.get(key)?.size ?? 0), 0);
    out.set(key, all.size + unpublished);
  }
  return out;
}
