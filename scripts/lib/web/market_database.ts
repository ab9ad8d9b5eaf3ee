/**
 * Where market data are asked, how many queries at once, and how an answer of any length comes through: at the reader's pace, and stopped at the
 * database when the reader goes.
 */
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client';
import { coldServer, createClickHouse } from '../clickhouse.ts';
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';
import { type DataType, TABLES } from '../rows.ts';
import { VIEW_DATABASES } from '../schema_sql.ts';
import { type WebContext, WebError } from './route.ts';

/** Of the last two days hot has everything; what is older it gives up by and by. */
const HOT_HAS_MS = 48 * 3_600_000;
/**
 * Queries at once. The embedded engine runs four long ones, of which the store needs one for its look-ups, or the pages of a slow reader would
 * hold up what arrives.
 */
const MOST_QUERIES = 3;
/** Of them those whose answer may take minutes. */
const MOST_LONG = 2;
/** More than these waiting are told to come again. */
const MOST_WAITING = 50;
/** A reader that takes nothing for this long is given up, ms: others wait for its place. */
const STALLED_MS = 30_000;
/** The database marks an error that came after the first rows so. */
const EXCEPTION = '__exception__';

/** Sorts and groups beyond these go to disk, or fail: never the machine. */
const LIMITS: ClickHouseSettings = {
  max_threads: 2,
  max_memory_usage: '1000000000',
  max_bytes_before_external_sort: '200000000',
  max_bytes_before_external_group_by: '300000000',
  // The share of the memory at which it spills would otherwise be looked at, too.
  max_bytes_ratio_before_external_sort: 0,
  max_bytes_ratio_before_external_group_by: 0,
  output_format_json_escape_forward_slashes: 0,
  // Whoever goes away takes his query along.
  cancel_http_readonly_queries_on_client_close: 1,
};
/** An answer is read at once. */
const SHORT: ClickHouseSettings = { ...LIMITS, max_execution_time: 30 };
/** An answer goes at its reader's pace. */
const LONG: ClickHouseSettings = { ...LIMITS, max_execution_time: 900 };

/** What an answer stands on: both tiers, or one of them where they are on two servers. */
export type Tier = 'hot,cold' | 'hot' | 'cold';

export interface MarketQuery {
  query: string;
  params: Record<string, unknown>;
  settings?: ClickHouseSettings;
}

/** A database that can be asked. */
export interface Source {
  client: ClickHouseClient;
  tier: Tier;
  table(type: DataType): string;
}

const DATABASES = new WeakMap<WebContext, MarketDatabase>();

export class MarketDatabase {
  private readonly slots = new Slots();
  private readonly cold: ClickHouseClient | null;

  private constructor(
    private readonly config: Config,
    private readonly client: ClickHouseClient,
    private readonly log: Logger,
    private readonly clock: () => number,
  ) {
    const isOneServer = config.clickhouseUrl === config.coldClickhouseUrl;
    this.cold = isOneServer ? null : createClickHouse(coldServer(config), 'marketprism-web');
  }

  /** The one of this service. */
  static of(context: WebContext): MarketDatabase {
    let database = DATABASES.get(context);
    if (database !== undefined) return database;
    database = new MarketDatabase(context.config, context.client, context.log, context.clock);
    DATABASES.set(context, database);
    const { cold } = database;
    context.stop.addEventListener('abort', () => void cold?.close(), { once: true });
    return database;
  }

  /**
   * Who has what happened from a time on. On two servers there is no view over both: hot answers for the last two days, of which it has everything,
   * and cold for what reaches further back; cold lacks what has come since the last round of replication.
   * @param from ms
   */
  source(from: number): Source {
    const { config, client, cold } = this;
    const of = (database: string) => (type: DataType) => `${database}.${TABLES[type].name}`;
    if (cold === null) return { client, tier: 'hot,cold', table: of(VIEW_DATABASES[config.mode]) };
    if (from >= this.clock() - HOT_HAS_MS) return { client, tier: 'hot', table: of(config.hotDatabase) };
    return { client: cold, tier: 'cold', table: of(config.coldDatabase) };
  }

  /**
   * All rows of an answer that is known to be short: integers and decimals as text, bools and nulls as such.
   * @throws WebError when too many wait; what the database throws
   */
  async rows<Row extends readonly unknown[]>(
    { client }: Source,
    asked: MarketQuery,
    gone: AbortSignal,
  ): Promise<Row[]> {
    const release = await this.slots.take(false, gone);
    const { signal, leave } = following(gone);
    try {
      const { query, params, settings } = asked;
      const result = await client.query({
        query,
        query_params: params,
        format: 'JSONCompactEachRow',
        query_id: `web:${randomUUID()}`,
        clickhouse_settings: { ...SHORT, ...settings },
        abort_signal: signal,
      });
      return (await result.json()) as unknown as Row[];
    } finally {
      leave();
      release();
    }
  }

  /** As `rows`, in the bytes of the query's own format. */
  async bytes({ client }: Source, { query, params, settings }: MarketQuery, gone: AbortSignal): Promise<Buffer> {
    const release = await this.slots.take(false, gone);
    const { signal, leave } = following(gone);
    try {
      const { stream, response_headers } = await client.exec({
        ...{ query, query_params: params, query_id: `web:${randomUUID()}`, abort_signal: signal },
        clickhouse_settings: { ...SHORT, ...settings },
      });
      const parts: Buffer[] = [];
      for await (const part of passed(stream as Readable, tagOf(response_headers))) parts.push(part);
      return Buffer.concat(parts);
    } finally {
      leave();
      release();
    }
  }

  /**
   * An answer of any length as it comes, in its format's own bytes. Reading slowly slows the database down; ending to read ends the query.
   * @throws WebError as `rows`
   */
  async stream({ client }: Source, { query, params, settings }: MarketQuery, gone: AbortSignal): Promise<Readable> {
    const release = await this.slots.take(true, gone);
    const id = `web:${randomUUID()}`;
    const { signal, leave } = following(gone);
    try {
      const { stream, response_headers } = await client.exec({
        ...{ query, query_params: params, query_id: id, abort_signal: signal },
        clickhouse_settings: { ...LONG, ...settings },
      });
      const upstream = stream as Readable;
      const onGone = () => upstream.destroy(new Error('the reader has gone'));
      signal.addEventListener('abort', onGone, { once: true });
      upstream.once('close', () => {
        leave();
        release();
        if (!upstream.readableEnded) void this.kill(client, id);
      });
      // Told where it is read; where nobody reads any more, there is nobody to be told.
      upstream.on('error', (error) => this.log.debug({ event: 'answer_broken', query_id: id, reason: error.message }));
      if (signal.aborted) onGone();
      const readable = Readable.from(passed(upstream, tagOf(response_headers)), { objectMode: false });
      // Also where nobody ever began to read.
      readable.once('close', () => upstream.destroy());
      return readable;
    } catch (error) {
      leave();
      release();
      throw error;
    }
  }

  /** A server does not end a query by itself because its reader has gone. */
  private async kill(client: ClickHouseClient, id: string): Promise<void> {
    try {
      const query = 'KILL QUERY WHERE query_id = {id:String} ASYNC';
      await client.command({ query, query_params: { id } });
    } catch (error) {
      this.log.warn({ event: 'query_not_killed', query_id: id, reason: (error as Error).message });
    }
  }
}

/** A signal of one query's own: the client never lets go of the one it was given, and a replay asks many. */
function following(gone: AbortSignal): { signal: AbortSignal; leave(): void } {
  const own = new AbortController();
  const onGone = () => own.abort(gone.reason);
  if (gone.aborted) onGone();
  gone.addEventListener('abort', onGone, { once: true });
  return { signal: own.signal, leave: () => gone.removeEventListener('abort', onGone) };
}

/** What came, until its end; an error in between ends it as one. */
async function* passed(upstream: Readable, tag: string | undefined): AsyncGenerator<Buffer> {
  const mark = tag === undefined ? null : Buffer.from(`${EXCEPTION}\r\n${tag}`);
  let before = Buffer.alloc(0);
  const stalled = () => upstream.destroy(new Error('the reader takes nothing'));
  let timer = setTimeout(stalled, STALLED_MS);
  try {
    for await (const chunk of upstream as AsyncIterable<Buffer>) {
      clearTimeout(timer);
      if (mark !== null) {
        const seen = Buffer.concat([before, chunk]);
        if (seen.includes(mark)) throw new Error(`the database broke off: ${seen.toString('utf8').slice(-500)}`);
        before = Buffer.from(seen.subarray(-mark.length));
      }
      timer = setTimeout(stalled, STALLED_MS);
      yield chunk;
      clearTimeout(timer);
    }
  } finally {
    clearTimeout(timer);
    upstream.destroy();
  }
}

function tagOf(headers: Record<string, string | string[] | undefined>): string | undefined {
  const tag = headers['x-clickhouse-exception-tag'];
  return typeof tag === 'string' && tag !== '' ? tag : undefined;
}

interface Waiter {
  isLong: boolean;
  start(): void;
}

/** Places for queries, in the order of asking; long ones leave one to the others. */
export class Slots {
  private running = 0;
  private long = 0;
  private readonly waiting: Waiter[] = [];

  /**
   * Waits for a place.
   * @returns what gives it back, once
   * @throws WebError when too many wait; the signal's reason when it fires
   */
  take(isLong: boolean, gone: AbortSignal): Promise<() => void> {
    if (this.waiting.length >= MOST_WAITING)
      return Promise.reject(new WebError(503, 'too many ask at once: come again in a few seconds'));
    return new Promise((done, fail) => {
      if (gone.aborted) {
        fail(gone.reason);
        return;
      }
      const onGone = () => {
        this.waiting.splice(this.waiting.indexOf(waiter), 1);
        fail(gone.reason);
      };
      const waiter: Waiter = {
        isLong,
        start: () => {
          gone.removeEventListener('abort', onGone);
          done(this.begin(isLong));
        },
      };
      gone.addEventListener('abort', onGone, { once: true });
      this.waiting.push(waiter);
      this.next();
    });
  }

  private begin(isLong: boolean): () => void {
    this.running += 1;
    if (isLong) this.long += 1;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.running -= 1;
      if (isLong) this.long -= 1;
      this.next();
    };
  }

  private next(): void {
    while (this.running < MOST_QUERIES) {
      const index = this.waiting.findIndex(({ isLong }) => !isLong || this.long < MOST_LONG);
      if (index < 0) return;
      this.waiting.splice(index, 1)[0]!.start();
    }
  }
}
