/**
 * Of unified_data_collector.ts: what was liquidated within an hour, by the database.
 *
 * Venues quote in USDT, USDC or USD: all are taken as dollars. What there is is a sample: Binance pushes one liquidation a second and symbol,
 * Deribit's are known up to 75 minutes late, and those of a symbol that is not collected never are.
 */
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client';
import { coldServer, createClickHouse, hotServer, type Server, selectText } from '../clickhouse.ts';
import { beijingText } from './beijing.ts';
import type { DeskContext } from './service.ts';
import { type PartTurn, SLOT_MS, type UnifiedPart, UnifiedSeries } from './unified_series.ts';

const NAME = 'liquidation_1h';
const HOUR_SLOTS = 12;
const DAY_SLOTS = 288;
const DAY_MS = DAY_SLOTS * SLOT_MS;
/** Hot keeps what arrived within so long; of what is older cold is asked, too. */
const HOT_MS = 3 * DAY_MS;
/** What the venues sent up to the slot is in hot by then. */
const SETTLE_MS = 30_000;
/** A database that is slower than this is tried again: the other series, and who stops the script, wait no longer. */
const QUERY: ClickHouseSettings = { max_execution_time: 6 };
const REQUEST_TIMEOUT_MS = 8000;
/** Decimal places of the product of two Decimal(38,18). */
const PLACES = 36;
const CENT = 10n ** BigInt(PLACES - 2);

/** Liquidations of five minutes at one exchange. */
export interface Bucket {
  /** ms since the epoch. */
  start: number;
  exchange: string;
  /** Sum of price times quantity, as the database writes it, to 36 places. */
  amount: string;
  count: number;
}

/** What the database has of a time. */
export interface Held {
  buckets: readonly Bucket[];
  /** The five minutes, by their start, in which open interest was collected: each venue is read each minute. Empty: it is not collected. */
  pulse: ReadonlySet<number>;
}

export interface Liquidations {
  /** Dollars, two decimals, and their number; null: not known. */
  amount: number | null;
  count: number | null;
}

export interface LiquidationHour extends Liquidations {
  /** The slot, ms, and in Beijing. */
  timestamp: number;
  datetime: string;
  /** Of exchanges with liquidations in the hour; each is rounded by itself. */
  by_exchange: Record<string, Liquidations> | null;
  is_sample: true;
  /** Why it is not known; null: it is. */
  reason: string | null;
  /** Of the twelve five-minute slots of the hour those in which nothing was collected; absent: none. */
  missing_slots?: number;
}

/**
 * The record of a slot, from the liquidations of the hour up to it.
 * @throws when what was collected has not reached the database up to the slot: it may yet
 */
export function liquidationHour(slot: number, { buckets, pulse }: Held): LiquidationHour {
  const starts = Array.from({ length: HOUR_SLOTS }, (_, n) => slot - (HOUR_SLOTS - n) * SLOT_MS);
  const last = Math.max(...pulse);
  if (pulse.size > 0 && last < slot - SLOT_MS)
    throw new Error(`nothing that was collected after ${beijingText(last + SLOT_MS)} is in the database`);
  const missing = pulse.size === 0 ? 0 : starts.filter((start) => !pulse.has(start)).length;
  const place = { timestamp: slot, datetime: beijingText(slot) };
  const ofDay = buckets.filter(({ start }) => start < slot && start >= slot - DAY_MS);
  const ofHour = ofDay.filter(({ start }) => start >= starts[0]!);
  if (ofHour.length === 0 && (ofDay.length === 0 || missing === HOUR_SLOTS)) {
    const reason =
      ofDay.length === 0
        ? 'the database has no liquidation of the 24 hours up to the slot'
        : 'nothing was collected in the hour up to the slot';
    return { ...place, amount: null, count: null, by_exchange: null, is_sample: true, reason };
  }
  const exchanges = [...new Set(ofHour.map(({ exchange }) => exchange))].sort();
  const of = (exchange: string) => total(ofHour.filter((each) => each.exchange === exchange));
  return {
    ...{ ...place, ...total(ofHour) },
    by_exchange: Object.fromEntries(exchanges.map((exchange) => [exchange, of(exchange)])),
    ...{ is_sample: true, reason: null },
    ...(missing === 0 ? {} : { missing_slots: missing }),
  };
}

/** Sums exactly, and rounds to cents at the end, half up. */
function total(buckets: readonly Bucket[]): Liquidations {
  const sum = buckets.reduce((all, { amount }) => all + scaled(amount), 0n);
  const count = buckets.reduce((all, each) => all + each.count, 0);
  return { amount: Number((2n * sum + CENT) / (2n * CENT)) / 100, count };
}

function scaled(amount: string): bigint {
  const [whole, fraction = ''] = amount.split('.') as [string, string?];
  return BigInt(whole + fraction.padEnd(PLACES, '0'));
}

/** Hot loses a day at once, and cold gets it before: whichever has more of five minutes has all of them. */
export function fuller(hot: readonly Bucket[], cold: readonly Bucket[]): Bucket[] {
  const buckets = new Map<string, Bucket>();
  for (const bucket of [...hot, ...cold]) {
    const key = `${bucket.start} ${bucket.exchange}`;
    if (bucket.count > (buckets.get(key)?.count ?? 0)) buckets.set(key, bucket);
  }
  return [...buckets.values()];
}

/** From a time on, and before another, ms. */
interface Span {
  from: number;
  to: number;
}

/** Asks one database. @throws when it does not answer */
async function held(client: ClickHouseClient, database: string, { from, to }: Span): Promise<Held> {
  const time = (ms: number) => `fromUnixTimestamp64Milli(toInt64(${ms}), 'UTC')`;
  const within = `timestamp >= ${time(from)} AND timestamp < ${time(to)}`;
  const start = `intDiv(toUnixTimestamp64Milli(timestamp), ${SLOT_MS}) * ${SLOT_MS}`;
  const amount = 'sum(toDecimal256(price, 18) * toDecimal256(quantity, 18))';
  // What was fetched back later does not tell that anything was collected then.
  const isLive = `NOT match(data_source, '^(backfill|repair):')`;
  const [rows, starts] = await Promise.all(
    [
      `SELECT ${start} AS start, exchange, ${amount}, count() FROM ${database}.liquidations WHERE ${within} GROUP BY start, exchange`,
      `SELECT DISTINCT ${start} FROM ${database}.open_interests WHERE ${within} AND ${isLive}`,
    ].map((query) => selectText(client, query, QUERY)),
  );
  const buckets = rows!.map(([at, exchange, sum, count]) => {
    return { start: Number(at), exchange: exchange!, amount: sum!, count: Number(count) };
  });
  return { buckets, pulse: new Set(starts!.map(([at]) => Number(at))) };
}

export class LiquidationHours implements UnifiedPart {
  readonly name = NAME;

  private constructor(
    private readonly context: DeskContext,
    private readonly out: UnifiedSeries,
    private readonly hot: ClickHouseClient,
    private readonly cold: ClickHouseClient,
  ) {}

  static async open(context: DeskContext): Promise<LiquidationHours> {
    const { config } = context;
    const connect = (server: Server) => createClickHouse(server, 'marketprism-unified', REQUEST_TIMEOUT_MS);
    const out = await UnifiedSeries.open(context, NAME, SETTLE_MS);
    return new LiquidationHours(context, out, connect(hotServer(config)), connect(coldServer(config)));
  }

  turn(stop: AbortSignal): Promise<PartTurn> {
    const now = this.context.clock();
    const isInHot = (slot: number) => slot - DAY_MS >= now - HOT_MS;
    // All slots by one query: of a database that is away one answer is waited for, and not one per slot.
    const prepare = (due: readonly number[]) => {
      const span = (slots: readonly number[]): Span => ({ from: slots[0]! - DAY_MS, to: slots.at(-1)! });
      let recent: Promise<Held> | undefined;
      let old: Promise<Held> | undefined;
      return async (slot: number) => {
        if (isInHot(slot)) recent ??= this.ofHot(span(due.filter(isInHot)));
        else old ??= this.ofBoth(span(due.filter((each) => !isInHot(each))));
        return liquidationHour(slot, await (isInHot(slot) ? recent : old)!);
      };
    };
    return this.out.take(prepare, stop, now);
  }

  async close(): Promise<void> {
    await this.out.close();
    await this.hot.close();
    await this.cold.close();
  }

  private ofHot(span: Span): Promise<Held> {
    return held(this.hot, this.context.config.hotDatabase, span);
  }

  private async ofBoth(span: Span): Promise<Held> {
    const ofCold = held(this.cold, this.context.config.coldDatabase, span);
    const [hot, cold] = await Promise.all([this.ofHot(span), ofCold]);
    return { buckets: fuller(hot.buckets, cold.buckets), pulse: new Set([...hot.pulse, ...cold.pulse]) };
  }
}
