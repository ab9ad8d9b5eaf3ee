/**
 * The collector's metrics, under the names that dashboards of the original platform know. Each is measured; what this collector cannot
 * do, such as dropping queued book updates, has no metric that would always say 0.
 */
import { statfsSync } from 'node:fs';
import { totalmem } from 'node:os';
import { Counter, type Gauge, Histogram, type Registry } from 'prom-client';
import type { StreamStatus } from './coverage.ts';
import type { Delivery, OutboxHealth } from './delivery.ts';
import type { ExchangeRunner, RunnerHooks } from './exchange_runner.ts';
import type { GapFiller } from './gap_filler.ts';
import type { Publisher } from './publisher.ts';
import { gaugeMaker, type MakeGauge } from './service.ts';
import { parseSubject } from './streams.ts';

const PREFIX = 'marketprism_';
/** Seconds: reading a book update takes microseconds, a publish milliseconds, a request tenths of a second. */
const READ_BUCKETS = [0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.1];
const PUBLISH_BUCKETS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 5];
const REQUEST_BUCKETS = [0.03, 0.1, 0.3, 1, 3, 10];

const STREAM_STATUSES: StreamStatus[] = ['healthy', 'stale', 'never', 'blocked'];

/** What is measured as it happens. */
export interface CollectorMeters extends RunnerHooks {
  /** @param rows in the message */
  published(subject: string, rows: number, seconds: number): void;
  publishRefused(subject: string, reason: string): void;
}

/** @returns what the collector's parts call when something happened */
export function createMeters(registry: Registry): CollectorMeters {
  const registers = [registry];
  const bookUpdate = new Histogram({
    name: `${PREFIX}orderbook_update_duration_seconds`,
    help: 'time to read a book update and apply it',
    labelNames: ['exchange'],
    buckets: READ_BUCKETS,
    registers,
  });
  const requests = new Histogram({
    name: `${PREFIX}request_duration_seconds`,
    help: 'requests to the exchanges',
    labelNames: ['endpoint', 'method'],
    buckets: REQUEST_BUCKETS,
    registers,
  });
  const published = new Counter({
    name: `${PREFIX}nats_messages_published_total`,
    help: 'messages that JetStream acknowledged',
    labelNames: ['subject'],
    registers,
  });
  const labelled = new Counter({
    name: `${PREFIX}nats_messages_published_labeled_total`,
    help: 'messages that JetStream acknowledged',
    labelNames: ['exchange', 'market_type', 'data_type'],
    registers,
  });
  const publishedRows = new Counter({
    name: `${PREFIX}rows_published_total`,
    help: 'rows in the messages that JetStream acknowledged; what is fetched again counts again',
    labelNames: ['exchange', 'data_type'],
    registers,
  });
  const publishing = new Histogram({
    name: `${PREFIX}nats_publish_duration_seconds`,
    help: 'from the last sending of a message to its acknowledgement',
    labelNames: ['data_type'],
    buckets: PUBLISH_BUCKETS,
    registers,
  });
  const refusals = new Counter({
    name: `${PREFIX}nats_publish_errors_total`,
    help: 'refused publishes; each is tried again',
    labelNames: ['subject', 'error_type'],
    registers,
  });
  return {
    bookFrame: (exchange, seconds) => bookUpdate.observe({ exchange }, seconds),
    request: (endpoint, method, seconds) => requests.observe({ endpoint, method }, seconds),
    published: (subject, rows, seconds) => {
      published.inc({ subject });
      const stream = parseSubject(subject);
      if (!stream) return;
      labelled.inc({ exchange: stream.exchange, market_type: stream.market_type, data_type: stream.type });
      publishedRows.inc({ exchange: stream.exchange, data_type: stream.type }, rows);
      publishing.observe({ data_type: stream.type }, seconds);
    },
    publishRefused: (subject, reason) => refusals.inc({ subject, error_type: reason.slice(0, 60) }),
  };
}

export interface MeteredCollector {
  runners: ExchangeRunner[];
  publisher: Publisher;
  delivery: Delivery;
  filler: GapFiller;
  /** Times that sockets were not read, as neither broker nor disk took what came. */
  pauses: number;
  config: { dataDir: string };
}

/** Registers what is read from the collector whenever the metrics are asked for. */
export function registerGauges(registry: Registry, collector: MeteredCollector): void {
  const gauge = gaugeMaker(registry);
  /** One sample per exchange. */
  const perExchange = (name: string, help: string, value: (runner: ExchangeRunner) => number) =>
    gauge(name, help, ['exchange'], (each) => {
      for (const runner of collector.runners) each.set({ exchange: runner.module.exchange }, value(runner));
    });
  machineGauges(gauge, collector);
  brokerGauges(gauge, collector);
  socketGauges(gauge, perExchange, collector);
  bookGauges(gauge, collector);
  streamGauges(gauge, collector);
  coverageGauges(gauge, collector);
  fillingGauges(gauge, collector);
}

type MakePerExchange = (name: string, help: string, value: (runner: ExchangeRunner) => number) => Gauge;

function machineGauges(gauge: MakeGauge, { config }: MeteredCollector): void {
  let before = { at: performance.now(), used: process.cpuUsage() };
  gauge('uptime_seconds', 'since the start of the collector', [], (each) => each.set(process.uptime()));
  gauge('cpu_usage_percent', 'of one core, since the metrics were last asked for', [], (each) => {
    const now = { at: performance.now(), used: process.cpuUsage() };
    const micros = now.used.user + now.used.system - before.used.user - before.used.system;
    each.set(micros / 10 / Math.max(now.at - before.at, 1));
    before = now;
  });
  gauge('memory_usage_bytes', 'resident memory', [], (each) => each.set(process.memoryUsage.rss()));
  gauge('process_rss_bytes', 'resident memory', [], (each) => each.set(process.memoryUsage.rss()));
  gauge('memory_usage_percent', 'resident memory, of the machine’s', [], (each) =>
    each.set((process.memoryUsage.rss() / totalmem()) * 100),
  );
  gauge('disk_usage_percent', 'of the disk with the data directory', [], (each) => {
    const { blocks, bfree } = statfsSync(config.dataDir);
    each.set(((blocks - bfree) / blocks) * 100);
  });
}

function brokerGauges(gauge: MakeGauge, { publisher, delivery }: MeteredCollector): void {
  gauge('nats_connected', 'whether the broker is there', [], (each) => each.set(publisher.isConnected ? 1 : 0));
  gauge('publish_waiting_bytes', 'bytes without an acknowledgement', [], (each) => each.set(delivery.waitingBytes));
  const perOutbox = (name: string, help: string, value: (outbox: OutboxHealth) => number | null) =>
    gauge(`outbox_${name}`, help, ['stream'], (each) => {
      for (const outbox of delivery.health()) {
        const sample = value(outbox);
        if (sample !== null) each.set({ stream: outbox.stream }, sample);
      }
    });
  perOutbox('bytes', 'bytes in the files of the outbox, copies included', (outbox) => outbox.bytes);
  perOutbox('spilled_bytes', 'bytes that wait on disk for the broker', (outbox) => outbox.spilledBytes);
  perOutbox('full', '1 while the outbox takes no more', (outbox) => (outbox.isFull ? 1 : 0));
  perOutbox('diverted', '1 while the broker’s stream is too full of unread rows', (outbox) =>
    outbox.diverted ? 1 : 0,
  );
  perOutbox('minutes_left', 'until the outbox is full, at the present rate', (outbox) => outbox.minutes_left);
  perOutbox('dropped_copies_total', 'second copies deleted before their time', (outbox) => outbox.droppedCopies);
  perOutbox('damaged_total', 'places in the files that could not be read', (outbox) => outbox.damaged);
  perOutbox('stream_unread_share', 'of the broker’s stream, not stored yet', (outbox) => outbox.unread_share);
  gauge('publish_events_total', 'messages stored, sent again, already there, refused', ['kind'], (each) => {
    for (const [kind, value] of Object.entries(publisher.stats)) each.set({ kind }, value);
  });
}

function socketGauges(gauge: MakeGauge, perExchange: MakePerExchange, { runners }: MeteredCollector): void {
  const sum = (runner: ExchangeRunner, value: (socket: ExchangeRunner['sockets'][number]) => number) =>
    runner.sockets.reduce((total, socket) => total + value(socket), 0);
  const newest = (runner: ExchangeRunner, value: (socket: ExchangeRunner['sockets'][number]) => number) =>
    Math.max(0, ...runner.sockets.map(value)) / 1000;
  perExchange('websocket_connected', 'open sockets', (runner) => sum(runner, ({ state }) => (state.connected ? 1 : 0)));
  perExchange('websocket_reconnections_total', 'sockets that were lost', (runner) =>
    sum(runner, ({ state }) => state.reconnects),
  );
  perExchange('websocket_renewals_total', 'sockets that were followed by a new one before their end', (runner) =>
    sum(runner, ({ state }) => state.renewals),
  );
  perExchange('ws_text_pings_total', 'heartbeats sent as text', (runner) => sum(runner, ({ state }) => state.pings));
  perExchange('ws_text_pongs_total', 'answers to them', (runner) => runner.eventCount('ignored', 'pong'));
  perExchange('ws_pong_timeouts_total', 'sockets given up because they were silent', (runner) =>
    sum(runner, ({ state }) => state.silences),
  );
  perExchange('ws_last_inbound_timestamp', 'of any socket, s', (runner) =>
    newest(runner, ({ state }) => state.lastInboundAt),
  );
  perExchange('ws_last_outbound_ping_timestamp', 'of any socket, s', (runner) =>
    newest(runner, ({ lastPingAt }) => lastPingAt),
  );
  gauge('websocket_messages_received_total', 'frames by what they became', ['exchange', 'message_type'], (each) => {
    for (const runner of runners) {
      for (const [message_type, count] of runner.frameCounts()) {
        each.set({ exchange: runner.module.exchange, message_type }, count);
      }
    }
  });
}

function bookGauges(gauge: MakeGauge, { runners }: MeteredCollector): void {
  const perBook = (
    name: string,
    help: string,
    value: (book: ReturnType<ExchangeRunner['bookQuality']>[number]) => number | null,
  ) =>
    gauge(name, help, ['exchange', 'symbol'], (each) => {
      for (const book of runners.flatMap((runner) => runner.bookQuality())) {
        const sample = value(book);
        const { exchange, symbol } = book.instrument;
        if (sample !== null) each.set({ exchange, symbol }, sample);
      }
    });
  perBook('orderbook_sync_status', '1 while the book stands', (book) => (book.standing ? 1 : 0));
  perBook(
    'orderbook_verified_percent',
    'of the time, proven by the venue’s own means',
    (book) => book.verified_percent,
  );
  perBook(
    'orderbook_unverifiable_percent',
    'of the time, standing without a proof',
    (book) => book.unverifiable_percent,
  );
  perBook('orderbook_clean_percent', 'of the provable time, without a break', (book) => book.clean_percent);
  perBook('orderbook_updates_total', 'updates read', (book) => book.updates);
  perBook('last_orderbook_update_timestamp', 's', (book) =>
    book.last_update_ts === null ? null : book.last_update_ts / 1000,
  );
  gauge('orderbook_resync_count', 'books that were built anew', ['exchange'], (each) => {
    for (const runner of runners) {
      const resyncs = runner.bookQuality().reduce((total, book) => total + book.resyncs, 0);
      each.set({ exchange: runner.module.exchange }, resyncs);
    }
  });
  gauge('snapshot_requests_total', 'requests of a feed', ['exchange', 'market_type', 'symbol', 'status'], (each) => {
    for (const { instrument, status, count } of runners.flatMap((runner) => runner.feedRequests())) {
      const { exchange, market_type, symbol } = instrument;
      each.set({ exchange, market_type, symbol, status }, count);
    }
  });
}

function streamGauges(gauge: MakeGauge, { runners }: MeteredCollector): void {
  gauge('active_symbols_count', 'symbols with a fresh row', [], (each) => {
    const fresh = runners.flatMap((runner) => runner.coverage()).filter(({ status }) => status === 'healthy');
    each.set(new Set(fresh.map(({ instrument }) => `${instrument.exchange} ${instrument.instrument}`)).size);
  });
  gauge('rows_received_total', 'distinct rows accepted', ['exchange', 'data_type'], (each) => {
    for (const { exchange, data_type, received } of runners.flatMap((runner) => runner.received())) {
      each.set({ exchange, data_type }, received);
    }
  });
  const success = 'collector_last_success_timestamp_seconds';
  gauge(success, 'when the last row came', ['exchange', 'data_type'], (each) => {
    const newest = new Map<string, { exchange: string; data_type: string; at: number }>();
    for (const { type, instrument, last_success_ts: at } of runners.flatMap((runner) => runner.coverage())) {
      const key = `${instrument.exchange} ${type}`;
      if (at !== null && at > (newest.get(key)?.at ?? 0)) {
        newest.set(key, { exchange: instrument.exchange, data_type: type, at });
      }
    }
    for (const { at, ...labels } of newest.values()) each.set(labels, at / 1000);
  });
  gauge('feed_events_total', 'frames by what became of them', ['exchange', 'kind', 'reason'], (each) => {
    forEvents(runners, (exchange, kind, reason, count) => each.set({ exchange, kind, reason }, count));
  });
  gauge('collector_errors_total', 'what went wrong', ['exchange', 'data_type', 'code'], (each) => {
    forEvents(runners, (exchange, kind, reason, count) => {
      if (kind === 'request_failed') each.set({ exchange, data_type: 'rest', code: reason }, count);
      else if (kind === 'silent' || kind === 'never_delivered')
        each.set({ exchange, data_type: reason, code: kind }, count);
      else if (kind === 'rejected') each.inc({ exchange, data_type: 'frame', code: kind }, count);
    });
  });
  gauge('data_validation_errors_total', 'frames refused', ['exchange', 'validation_type'], (each) => {
    forEvents(runners, (exchange, kind, reason, count) => {
      if (kind === 'rejected') each.set({ exchange, validation_type: reason }, count);
    });
  });
  gauge('errors_total', 'what went wrong', ['component', 'error_type'], (each) => {
    forEvents(runners, (exchange, kind, _, count) => {
      if (['request_failed', 'rejected', 'silent', 'never_delivered'].includes(kind)) {
        each.inc({ component: exchange, error_type: kind }, count);
      }
    });
  });
}

/** How many of the streams that were asked for are in which state; those without a stream are 0, so that a sum over them is a sum. */
function coverageGauges(gauge: MakeGauge, { runners }: MeteredCollector): void {
  gauge('coverage_streams', 'streams by their state', ['exchange', 'data_type', 'status'], (each) => {
    for (const { type: data_type, instrument, status } of runners.flatMap((runner) => runner.coverage())) {
      const labels = { exchange: instrument.exchange, data_type };
      for (const name of STREAM_STATUSES) each.inc({ ...labels, status: name }, name === status ? 1 : 0);
    }
  });
}

function fillingGauges(gauge: MakeGauge, collector: MeteredCollector): void {
  const { filler } = collector;
  const { stats } = filler;
  gauge('gap_filler_pending', 'open gaps that are still to be fetched', [], (each) => each.set(filler.pendingCount));
  gauge('gap_filler_fetched_rows_total', 'rows that were fetched for gaps', [], (each) => each.set(stats.fetchedRows));
  gauge('gap_filler_fetched_gaps_total', 'gaps that were fetched', [], (each) => each.set(stats.fetchedGaps));
  gauge('gap_filler_unfillable_total', 'gaps that a venue does not serve', [], (each) => each.set(stats.unfillable));
  gauge('collector_pauses_total', 'times that sockets were not read', [], (each) => each.set(collector.pauses));
}

function forEvents(
  runners: ExchangeRunner[],
  use: (exchange: string, kind: string, reason: string, count: number) => void,
): void {
  for (const runner of runners) {
    for (const { kind, reason, count } of runner.eventCounts()) use(runner.module.exchange, kind, reason, count);
  }
}
