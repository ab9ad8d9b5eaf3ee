/** The store's metrics: what it took, stored, and could not store, and how long rows were on their way. Each is measured. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { type Arrival, lineOf } from './arrivals.ts';
import { badFiles, letterFiles } from './deadletter.ts';
import type { GapCount } from './gap_rows.ts';
import { DATA_TYPES, type DataType } from './rows.ts';
import { gaugeMaker, type MakeGauge } from './service.ts';
import type { TableStore } from './table_store.ts';

const PREFIX = 'marketprism_storage_';
/** s. A batch is closed after a quarter of a second, the target is p50 0.5 and p99 2; what waited for a broker or a database takes minutes. */
const LATENCY_BUCKETS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 1800];
const MICROS_PER_SECOND = 1_000_000;

/** Of one insert, so many messages are looked at for their latency: of more, every second, third, … one. */
const MOST_SAMPLES = 1000;

/** How our rows begin and end, as `rows.ts` writes them and the store splices into them. */
const EXCHANGE = '"exchange":"';
const TAIL = /"received_at":(\d{1,16}),"data_source":"([^"\\]*)"\}\s*$/;
/** Nothing that `TAIL` looks for is longer. */
const TAIL_CHARACTERS = 400;

/** The rows of one message among those that were inserted. */
export interface InsertedMessage {
  exchange: string;
  rows: number;
  /** Those of one message were received within milliseconds. */
  first: Arrival;
}

/** The messages of rows that stand in the order in which they came. */
export function insertedMessages(rows: readonly Arrival[]): InsertedMessage[] {
  const messages: InsertedMessage[] = [];
  for (let from = 0, to = 0; from < rows.length; from = to) {
    const first = rows[from]!;
    const { message } = first;
    for (to = from + 1; to < rows.length && rows[to]!.message === message; ) to += 1;
    const start = message.text.indexOf(EXCHANGE) + EXCHANGE.length;
    messages.push({ exchange: message.text.slice(start, message.text.indexOf('"', start)), rows: to - from, first });
  }
  return messages;
}

/** How long a row was on its way, s; null where it did not come straight from an exchange, or is not written as ours are. */
export function latencyOf(line: string, mode: string, now: number): number | null {
  const [, receivedAt, dataSource] = TAIL.exec(line.slice(-TAIL_CHARACTERS)) ?? [];
  if (receivedAt === undefined || dataSource !== mode) return null;
  // The clocks of two machines may differ by more than a row needs.
  return Math.max(now / 1000 - Number(receivedAt) / MICROS_PER_SECOND, 0);
}

/** What a table tells as it happens. */
export interface StoreMeters {
  /** @param now when the database confirmed them, ms since the epoch */
  inserted(type: DataType, rows: readonly Arrival[], now: number): void;
}

/** @param mode of the store, which is what rows name as their source that came straight from an exchange */
export function createStoreMeters(registry: Registry, mode: string): StoreMeters {
  const registers = [registry];
  const stored = new Counter({
    name: `${PREFIX}stored_rows_total`,
    help: 'rows that were inserted and confirmed, live, filled and repaired ones',
    labelNames: ['exchange', 'data_type'],
    registers,
  });
  const newest = new Gauge({
    name: `${PREFIX}last_stored_timestamp_seconds`,
    help: 'when rows were last inserted and confirmed',
    labelNames: ['exchange', 'data_type'],
    registers,
  });
  const latency = new Histogram({
    name: `${PREFIX}latency_seconds`,
    help: 'from receiving a live message’s first row to the confirmation that it can be queried in hot, a sample per message',
    labelNames: ['data_type'],
    buckets: LATENCY_BUCKETS,
    registers,
  });
  return {
    inserted(type, rows, now) {
      const messages = insertedMessages(rows);
      const counts = new Map<string, number>();
      for (const message of messages) counts.set(message.exchange, (counts.get(message.exchange) ?? 0) + message.rows);
      for (const [exchange, count] of counts) {
        stored.inc({ exchange, data_type: type }, count);
        newest.set({ exchange, data_type: type }, now / 1000);
      }
      const step = Math.ceil(messages.length / MOST_SAMPLES);
      for (let i = 0; i < messages.length; i += step) {
        const seconds = latencyOf(lineOf(messages[i]!.first), mode, now);
        if (seconds !== null) latency.observe({ data_type: type }, seconds);
      }
    },
  };
}

/** What is read from the store whenever the metrics are asked for. */
export interface MeteredStore {
  config: { dataDir: string };
  watch: { connected: boolean };
  tables: readonly TableStore[];
  gaps: { counts: readonly GapCount[] } | null;
  /** Messages not yet delivered, by durable. */
  backlog: ReadonlyMap<string, number>;
}

const GAP_STATES = ['open', 'filled', 'unfillable'];

const FIGURES = {
  messages: 'messages taken from JetStream',
  rows: 'rows in them',
  inserted: 'rows that were inserted and confirmed',
  duplicates: 'rows that were there already, or came twice in a batch',
  deadletters: 'rows that cannot be stored, kept under data/deadletter',
  inserts: 'confirmed inserts',
  unclear: 'inserts without a clear answer',
  lookupsFailed: 'questions for the rows that are there that failed; each is asked again',
  refused: 'messages of the other mode',
} as const;

export function registerStoreGauges(registry: Registry, store: MeteredStore): void {
  const gauge = gaugeMaker(registry);
  for (const [figure, help] of Object.entries(FIGURES) as [keyof typeof FIGURES, string][]) {
    const name = figure === 'lookupsFailed' ? 'lookups_failed' : figure;
    gauge(`storage_${name}_total`, help, ['data_type'], (each) => {
      for (const { type, stats } of store.tables) each.set({ data_type: type }, stats[figure]);
    });
  }
  gapGauges(gauge, store);
  const backlog = 'messages that JetStream has not yet delivered to the store';
  gauge('storage_backlog_messages', backlog, ['durable'], (each) => {
    for (const [durable, count] of store.backlog) each.set({ durable }, count);
  });
  gauge('nats_connected', 'whether the broker is there', [], (each) => each.set(store.watch.connected ? 1 : 0));
  letterGauges(gauge, store);
}

/** States that no gap of a stream is in are 0 as soon as the stream has a row, so that the first gap of a state is seen as an increase. */
function gapGauges(gauge: MakeGauge, store: MeteredStore): void {
  const perState = (name: string, help: string, value: (count: GapCount) => number) =>
    gauge(`storage_${name}`, help, ['exchange', 'data_type', 'status'], (each) => {
      const counts = store.gaps?.counts ?? [];
      const streams = store.tables.flatMap(({ type, streams: own }) =>
        own.map(({ exchange }) => ({ exchange, data_type: type })),
      );
      for (const { exchange, data_type } of [...streams, ...counts]) {
        for (const status of GAP_STATES) each.set({ exchange, data_type, status }, 0);
      }
      for (const count of counts) {
        const { exchange, data_type, status } = count;
        each.set({ exchange, data_type, status }, value(count));
      }
    });
  perState('gaps', 'gaps by their present state', ({ gaps }) => gaps);
  perState('gap_rows', 'rows of gaps by their present state', ({ rows }) => rows);
}

function letterGauges(gauge: MakeGauge, { config }: MeteredStore): void {
  const perType = (name: string, help: string, files: typeof letterFiles) =>
    gauge(`deadletter_${name}`, help, ['data_type'], (each) => {
      for (const type of DATA_TYPES) each.set({ data_type: type }, files(config.dataDir, [type]).length);
    });
  perType('files', 'files with rows that could not be stored and that no replay has dealt with', letterFiles);
  perType('bad_files', 'files with lines that no replay could read', badFiles);
}
