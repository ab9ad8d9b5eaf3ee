/** What `/api/overview` answers. */
import { z } from 'zod';

const ms = z.number();
const count = z.number().int();
const perSecond = z.number().nullable();
const bytes = z.number();

/** Of the pipeline, in the order in which a row passes them, and then of what reads beside it. */
export const STAGES = [
  ...(['collector', 'nats', 'store', 'hot', 'replicate', 'cold'] as const),
  ...(['monitor', 'harvester', 'desk', 'correlation'] as const),
] as const;
export type StageName = (typeof STAGES)[number];

const STAGE = z.object({
  name: z.enum(STAGES),
  status: z.enum(['healthy', 'degraded', 'unhealthy', 'away']).describe('away: it does not answer.'),
  reason: z.string().nullable().describe('One line when it is not healthy.'),
  rate: perSecond.describe('Rows a second; of nats messages; null: not known, or there is none.'),
  lag_ms: ms
    .nullable()
    .describe(
      'collector: age of what waits longest for the broker; store: of what it holds longest without an answer of the database; replicate: of the oldest row that is not in cold; readers: of their data.',
    ),
});
export type Stage = z.infer<typeof STAGE>;

const EXCHANGE = z.object({
  exchange: z.string(),
  status: z.enum(['healthy', 'degraded', 'unhealthy']).nullable().describe('null: the collector does not answer.'),
  reason: z.string().nullable(),
  rate: perSecond.describe('Rows accepted, a second; those that come again after a reconnect are counted again.'),
  rows: count.nullable().describe('Accepted in this run of the collector, in the same way.'),
  last_row: ms.nullable(),
  last_row_age_ms: ms.nullable(),
  sockets: count.nullable(),
  connected: count.nullable(),
  reconnects: count.nullable(),
  resyncs: count.nullable().describe('Books that were built anew.'),
  rejected: count.nullable().describe('Frames and rows that were not sound, and refused subscriptions.'),
  failed_requests: count.nullable(),
});
export type ExchangeFigures = z.infer<typeof EXCHANGE>;

const STREAM = z.object({
  name: z.string(),
  messages: count,
  bytes,
  max_bytes: bytes,
  unread: count.nullable().describe('Messages that the store has not acknowledged.'),
  rate: perSecond.describe('Messages a second.'),
});

const TIER = z.object({ rows: count, bytes: bytes.describe('On disk, compressed.') }).nullable();

export const OVERVIEW_ANSWER = z.object({
  time: ms.describe('The clock of the service when it looked.'),
  measured_ms: ms
    .nullable()
    .describe(
      'Rates are over so much time, that of replication over three of its rounds; null: nothing was looked at twice yet.',
    ),
  stages: z.array(STAGE),
  exchanges: z.array(EXCHANGE),
  broker: z.object({
    streams: z.array(STREAM).nullable().describe('null: the broker does not answer.'),
    unread: count.nullable(),
  }),
  tiers: z.object({ hot: TIER, cold: TIER }),
  tables: z
    .array(
      z.object({
        data_type: z.string(),
        stored_rate: perSecond.describe('Rows that the store inserted, a second.'),
        backlog: count.nullable().describe('Messages that were not delivered to the store yet.'),
        holding: count.describe('Messages that it took, and the database has not confirmed.'),
        lag_ms: ms.nullable().describe('Of replication.'),
      }),
    )
    .describe('As the store has them; empty while it does not answer.'),
  outbox: z.object({
    waiting_bytes: bytes
      .nullable()
      .describe('Without an acknowledgement of the broker; null: the collector does not answer.'),
    spilled_bytes: bytes.nullable().describe('Of them what waits in files to be read back.'),
    oldest_ms: ms
      .nullable()
      .describe('Age of the oldest message without an acknowledgement; null: none, or not known.'),
    minutes_left: z
      .number()
      .nullable()
      .describe('Until it is full at the present rate; null: nothing spills, or not known.'),
    diverted: z.boolean().nullable().describe('The store does not keep up: what comes waits in files.'),
    paused: z.boolean().nullable().describe('Neither broker nor disk take what comes: the sockets are not read.'),
    file_bytes: bytes.describe(
      'All files of the outbox, those included that are kept for a while after they were acknowledged.',
    ),
  }),
  deadletters: z.object({
    rows: count,
    harvest_rows: count,
    unreadable: count.describe('Lines that are no letters.'),
    set_aside_files: count,
  }),
  disk: z.object({ free_bytes: bytes, size_bytes: bytes }).nullable(),
});
export type OverviewAnswer = z.infer<typeof OVERVIEW_ANSWER>;
