/** What the services of the pipeline say of themselves at their /health, as far as the overview needs it. */
import { z } from 'zod';
import { healthOf } from '../joint_health.ts';
import type { CheckStatus } from '../service.ts';

/** A service that answers later than this is away for the overview, ms: the others' figures do not wait for it. */
const TIMEOUT_MS = 2000;

const status = z.enum(['healthy', 'degraded', 'unhealthy']);
const count = z.number();

/** One check of any service. */
const CHECK = z.looseObject({ status, error_message: z.string().nullable() });
const DOCUMENT = z.looseObject({ status, uptime: z.number(), checks: z.record(z.string(), CHECK).default({}) });

const SOCKET = z.looseObject({
  connected: z.boolean(),
  blocked: z.boolean(),
  reconnects: count,
  silences: count,
  frames: count,
  /** Wall clock, ms; 0: nothing came yet. */
  lastInboundAt: count,
});
const EVENT = z.object({ kind: z.string(), reason: z.string(), count });
/** A check that is an exchange has these. */
const EXCHANGE_DETAILS = z.looseObject({ sockets: z.array(SOCKET), events: z.array(EVENT) });

const OUTBOX = z.looseObject({
  stream: z.string(),
  unacknowledgedBytes: count,
  spilledBytes: count,
  oldestUnacknowledgedAt: count.nullable(),
  diverted: z.boolean(),
  minutes_left: z.number().nullable(),
});
const OUTBOX_DETAILS = z.looseObject({ paused: z.boolean(), streams: z.array(OUTBOX) });

const STREAM_STATE = z.looseObject({
  /** Accepted since the start. */
  rows: count,
  last_success_ts: z.number().nullable(),
  status: z.enum(['healthy', 'stale', 'never', 'blocked']),
});
/** Data type → exchange → market type → symbol. */
const COVERAGE = z.record(z.string(), z.record(z.string(), z.record(z.string(), z.record(z.string(), STREAM_STATE))));

const COLLECTOR = DOCUMENT.extend({
  boot: z.string(),
  coverage: COVERAGE,
});

/** A check of the store that is a table's; it has others besides. */
const TABLE_DETAILS = z.looseObject({
  inserted: count,
  duplicates: count,
  holding: count,
  /** Wall clock, ms; 0: nothing is held, or was confirmed. */
  holdingSince: count,
  lastConfirmedAt: count,
  backlog: count.nullable(),
});

const REPLICATED_DETAILS = z.looseObject({
  rows: count,
  copied: count,
  lag_minutes: z.number().nullable(),
  disagreement: z.string().nullable(),
});
const REPLICATE = DOCUMENT.extend({ last_pass: z.iso.datetime().nullable() });

export type ServiceDocument = z.output<typeof DOCUMENT>;
export type CollectorDocument = z.output<typeof COLLECTOR>;
export type ReplicateDocument = z.output<typeof REPLICATE>;

/** What a service said, or why there is nothing, in a line. */
export type Asked<T> = { document: T } | { fault: string };

export const askCollectors = (ports: readonly number[]) => ask(ports, 'collector.ts', COLLECTOR);
export const askStore = (ports: readonly number[]) => ask(ports, 'store.ts', DOCUMENT);
export const askReplicate = (port: number) => ask([port], 'replicate.ts', REPLICATE);
export const askMonitor = (port: number) => ask([port], 'monitor.ts', DOCUMENT);

/** @param ports of one service; of several collectors or stores */
async function ask<T>(ports: readonly number[], script: string, schema: z.ZodType<T>): Promise<Asked<T>> {
  const port = ports.join(', ');
  try {
    const parsed = schema.safeParse(await healthOf(ports, TIMEOUT_MS));
    if (parsed.success) return { document: parsed.data };
    const { path, message } = parsed.error.issues[0]!;
    return { fault: `what answers on port ${port} is not ${script}: ${path.join('.') || 'document'}: ${message}` };
  } catch (error) {
    return { fault: `${script} on port ${port} does not answer: ${whyOf(error)}` };
  }
}

/** A code rather than a message, where there is one: it is the same in each version of what is under it. */
export function whyOf(error: unknown): string {
  const { code, name, message, cause } = error as Error & { code?: string; cause?: { code?: string } };
  const known = cause?.code ?? code;
  if (known !== undefined) return String(known);
  return name === 'TimeoutError' ? 'no answer in time' : name === 'SyntaxError' ? 'its answer is no JSON' : message;
}

/** Why a service is not healthy, in a line; null: it is. */
export function reasonOf({ status: own, checks }: ServiceDocument): string | null {
  if (own === 'healthy') return null;
  const faults = Object.entries(checks).filter(([, check]) => check.status !== 'healthy');
  const told = faults.map(([name, { error_message }]) => `${name}: ${error_message ?? 'not healthy'}`).join('; ');
  return told || `it says ${own}`;
}

export interface SocketFigures {
  status: CheckStatus;
  reason: string | null;
  sockets: number;
  connected: number;
  reconnects: number;
  /** Frames and rows that were not understood or not sound, and refused subscriptions. */
  rejected: number;
  /** Requests over REST that were not served. */
  failed_requests: number;
  /** Books that were dropped and built anew. */
  resyncs: number;
}

const isRejected = ({ kind, reason }: z.output<typeof EVENT>) =>
  kind === 'rejected' || (kind === 'ack' && reason === 'error');
const isFailed = ({ kind }: z.output<typeof EVENT>) => kind === 'request_failed' || kind === 'history_failed';
const isResync = ({ kind }: z.output<typeof EVENT>) => kind === 'resync';

/** The exchanges of a collector, by their names. */
export function exchangesOf({ checks }: CollectorDocument): Map<string, SocketFigures> {
  const out = new Map<string, SocketFigures>();
  for (const [name, { status: own, error_message: reason, details }] of Object.entries(checks)) {
    const parsed = EXCHANGE_DETAILS.safeParse(details);
    if (!parsed.success) continue;
    const { sockets, events } = parsed.data;
    const counted = (is: (event: z.output<typeof EVENT>) => boolean) =>
      events.filter(is).reduce((sum, event) => sum + event.count, 0);
    out.set(name, {
      ...{ status: own, reason, sockets: sockets.length },
      connected: sockets.filter(({ connected }) => connected).length,
      reconnects: sockets.reduce((sum, socket) => sum + socket.reconnects, 0),
      ...{ rejected: counted(isRejected), failed_requests: counted(isFailed), resyncs: counted(isResync) },
    });
  }
  return out;
}

/** What a collector accepted of one exchange and type since its start. */
export interface Accepted {
  exchange: string;
  data_type: string;
  /** Those that came again after a reconnect are counted again: it is what flows, and not what is stored. */
  rows: number;
  /** When the newest came, ms; null: none yet. */
  last: number | null;
}

export function acceptedOf({ coverage }: CollectorDocument): Accepted[] {
  return Object.entries(coverage).flatMap(([data_type, exchanges]) =>
    Object.entries(exchanges).map(([exchange, markets]) => {
      const streams = Object.values(markets).flatMap((symbols) => Object.values(symbols));
      const times = streams.flatMap(({ last_success_ts: at }) => at ?? []);
      return {
        ...{ exchange, data_type, rows: streams.reduce((sum, { rows }) => sum + rows, 0) },
        last: times.length === 0 ? null : Math.max(...times),
      };
    }),
  );
}

export function outboxOf({ checks }: CollectorDocument): z.output<typeof OUTBOX_DETAILS> | null {
  return OUTBOX_DETAILS.safeParse(checks.outbox?.details).data ?? null;
}

/** The tables of a store, by data type. */
export function tablesOf({ checks }: ServiceDocument): Map<string, z.output<typeof TABLE_DETAILS>> {
  const known = Object.entries(checks).map(
    ([name, { details }]) => [name, TABLE_DETAILS.safeParse(details).data] as const,
  );
  return new Map(known.flatMap(([name, details]) => (details === undefined ? [] : [[name, details]])));
}

/** The tables of a replication, by their names. */
export function replicatedOf({ checks }: ServiceDocument): Map<string, z.output<typeof REPLICATED_DETAILS>> {
  const known = Object.entries(checks).map(
    ([name, { details }]) => [name, REPLICATED_DETAILS.safeParse(details).data] as const,
  );
  return new Map(known.flatMap(([name, details]) => (details === undefined ? [] : [[name, details]])));
}
