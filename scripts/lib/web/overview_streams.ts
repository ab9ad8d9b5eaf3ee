/**
 * The newest row of each stream in hot. Every few seconds only the last minutes are looked at, which the tables' order makes cheap; what came
 * before is looked up once a minute.
 */
import { type DataType, type Exchange, type MarketType, TABLES } from '../rows.ts';
import { MarketDatabase, type Source } from './market_database.ts';
import { timeOf } from './market_lists.ts';
import { type WebContext, WebError } from './route.ts';

export interface StreamNewest {
  type: DataType;
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
  /** Event time, ms. */
  newest: number;
}

const MINUTE_MS = 60_000;
/** Who asks within this time is told the same, ms. */
const KEPT_MS = 2000;
const RECENT_MS = 5 * MINUTE_MS;
/** Streams are those of the last day, as for the monitor. */
const DAY_MS = 24 * 60 * MINUTE_MS;
const DAY_EVERY_MS = MINUTE_MS;
/** More streams than any server follows. */
const MOST_STREAMS = 20_000;
const SETTINGS = { max_execution_time: 10 };

type Wanted = ReadonlyMap<Exchange, ReadonlyMap<DataType, unknown>>;
type Known = Map<string, StreamNewest>;

const LOOKS = new WeakMap<WebContext, HotStreams>();

export class HotStreams {
  private day: Known = new Map();
  private dayAt = Number.NEGATIVE_INFINITY;
  private streams: StreamNewest[] = [];
  private at = Number.NEGATIVE_INFINITY;
  private looking: Promise<StreamNewest[]> | null = null;

  private constructor(private readonly context: WebContext) {}

  /** The one of this service. */
  static of(context: WebContext): HotStreams {
    let look = LOOKS.get(context);
    if (look === undefined) LOOKS.set(context, (look = new HotStreams(context)));
    return look;
  }

  /** All streams of the last 24 h, and of exchanges and types that are wanted and had none then those of all that hot keeps. */
  async look(wanted: Wanted, gone: AbortSignal): Promise<StreamNewest[]> {
    const since = this.context.clock() - this.at;
    if (since >= 0 && since < KEPT_MS) return this.streams;
    // Who comes while one looks waits for the same: it belongs to nobody, and is ended by none who goes.
    this.looking ??= this.ask(wanted).finally(() => {
      this.looking = null;
    });
    const left = new Promise<never>((_, fail) => {
      if (gone.aborted) fail(gone.reason as Error);
      gone.addEventListener('abort', () => fail(gone.reason as Error), { once: true });
    });
    return Promise.race([this.looking, left]);
  }

  private async ask(wanted: Wanted): Promise<StreamNewest[]> {
    const now = this.context.clock();
    // A clock that was set back is a reason to look, too.
    const sinceDay = now - this.dayAt;
    if (sinceDay < 0 || sinceDay >= DAY_EVERY_MS) {
      this.day = await this.lookBack(wanted, now);
      this.dayAt = now;
    } else merge(this.day, await this.query(Object.keys(TABLES) as DataType[], now - RECENT_MS));
    this.streams = [...this.day.values()];
    this.at = now;
    return this.streams;
  }

  private async lookBack(wanted: Wanted, now: number): Promise<Known> {
    const known: Known = new Map();
    merge(known, await this.query(Object.keys(TABLES) as DataType[], now - DAY_MS));
    const seen = new Set([...known.values()].map(({ exchange, type }) => `${exchange} ${type}`));
    const absent = new Map<DataType, Exchange[]>();
    for (const [exchange, types] of wanted)
      for (const type of types.keys())
        if (!seen.has(`${exchange} ${type}`)) absent.set(type, [...(absent.get(type) ?? []), exchange]);
    for (const [type, exchanges] of absent) merge(known, await this.query([type], 0, exchanges));
    return known;
  }

  private async query(
    types: readonly DataType[],
    from: number,
    exchanges?: readonly Exchange[],
  ): Promise<StreamNewest[]> {
    const { config, client, stop } = this.context;
    const source: Source = { client, tier: 'hot', table: (type) => `${config.hotDatabase}.${TABLES[type].name}` };
    const of = exchanges === undefined ? '' : ' AND each.exchange IN {exchanges:Array(String)}';
    const parts = types
      .filter((type) => type !== 'gap')
      .map(
        (type) =>
          `SELECT '${type}' AS type, each.exchange AS exchange, each.market_type AS market_type, each.symbol AS symbol, ` +
          `toUnixTimestamp64Milli(max(each.timestamp)) AS newest FROM ${source.table(type)} AS each ` +
          `WHERE each.timestamp >= ${timeOf('from')}${of} GROUP BY exchange, market_type, symbol`,
      );
    const rows = await MarketDatabase.of(this.context).rows<[DataType, Exchange, MarketType, string, string]>(
      source,
      {
        query: `SELECT type, exchange, market_type, symbol, newest FROM (${parts.join(' UNION ALL ')}) LIMIT {most:UInt32}`,
        params: { from, most: MOST_STREAMS, ...(exchanges === undefined ? {} : { exchanges: [...exchanges] }) },
        settings: SETTINGS,
      },
      stop,
    );
    // Rather no answer than one that leaves streams out.
    if (rows.length === MOST_STREAMS) throw new WebError(500, `hot has more than ${MOST_STREAMS} streams`);
    return rows.map(([type, exchange, market_type, symbol, newest]) => ({
      ...{ type, exchange, market_type, symbol, newest: Number(newest) },
    }));
  }
}

function merge(known: Known, found: readonly StreamNewest[]): void {
  for (const stream of found) {
    const { type, exchange, market_type, symbol, newest } = stream;
    const key = `${type} ${exchange} ${market_type} ${symbol}`;
    const before = known.get(key);
    if (before === undefined || before.newest < newest) known.set(key, stream);
  }
}
