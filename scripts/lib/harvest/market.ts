/** The second stage of a market's harvest: its ordered trades and book changes become rows. */
import { subtract } from '../arithmetic.ts';
import { decimalNumber } from '../decimal.ts';
import type { Exchange, Level, MarketType } from '../rows.ts';
import type { BookChange, BookGap } from './book_track.ts';
import type { BookItem, TradeItem } from './core.ts';
import { ACTIVE_TPS } from './cvd.ts';
import { type EventState, freshEvents, type MarketEvent, takeEvents } from './events.ts';
import { CALIBRATION_K, type FusionFigures, type FusionState, freshFusion, takeFusion } from './fusion.ts';
import { dateHour, type HarvestKind, type HarvestRow, isRaw, rowId } from './kinds.ts';
import { TOP_LEVELS } from './ofi.ts';
import {
  type BookView,
  closeSeconds,
  correctSeconds,
  countTrade,
  freshSeconds,
  type KeptSecond,
  openSecond,
  type SecondsState,
  type VolBucket,
} from './seconds.ts';
import type { Trade } from './trade_track.ts';

/** A book up to so much older than the trade is aligned with it strictly, ms. */
const STRICT_MS = 800;
/** Fees as a taker of makers' orders. */
const FEE_TIER = 'TM';
const HOUR_MS = 3_600_000;
/** From these UTC hours on. */
const SESSIONS = ['Tokyo', 'London', 'NY'] as const;
const SESSION_HOURS = 8;

/** What a book's newest state says, and its order flow. */
interface BookNow extends BookView {
  received: number;
  z: number | null;
  zRaw: number | null;
}

/** Plain data. */
export interface MarketHarvestState {
  book: BookNow | null;
  /** The newest trade: event time and arrival, ms. */
  trade: { time: number; received: number } | null;
  tps: number | null;
  cvdZ: number | null;
  cvdZRaw: number | null;
  missing: number;
  restarts: number;
  fusion: FusionState;
  events: EventState;
  seconds: SecondsState;
}

function fresh(): MarketHarvestState {
  return {
    ...{ book: null, trade: null, tps: null, cvdZ: null, cvdZRaw: null, missing: 0, restarts: 0 },
    ...{ fusion: freshFusion(), events: freshEvents(), seconds: freshSeconds() },
  };
}

export class MarketHarvest {
  readonly state: MarketHarvestState;
  private place = { at: Number.NaN, date: '', hour: '' };

  constructor(
    private readonly stream: { exchange: Exchange; market_type: MarketType; symbol: string },
    private readonly write: (row: HarvestRow) => void,
    state: MarketHarvestState = fresh(),
  ) {
    this.state = structuredClone(state);
  }

  take(item: BookItem | TradeItem): void {
    this.closeUntil(item.order);
    const silence = openSecond(this.state.seconds, item.order);
    if (silence !== null) this.tellGap(item.order, receivedOf(item), 'silence', silence);
    if (item.type === 'trade') this.takeTrade(item);
    else if (item.type === 'book') this.takeBook(item);
    else this.takeBookGap(item);
  }

  /** Tells the seconds that are over at `time` (ms). */
  closeUntil(time: number): void {
    const { seconds, book } = this.state;
    const until = Math.floor(time / 1000) * 1000;
    if (seconds.open === null || seconds.open >= until) return;
    for (const each of closeSeconds(seconds, until, { book, regime: this.regime() })) this.tellSecond(each);
  }

  // ---------------------------------------------------------------------------------------------------------------- books

  private takeBook({ change, figures, isReset, restarts, bad }: BookItem & { type: 'book' }): void {
    const { state } = this;
    const { time, received, top, last } = change;
    state.restarts = restarts;
    state.seconds.changes += 1;
    state.seconds.received = Math.max(state.seconds.received, received);
    this.tellBook(change);
    const [bid] = top.bids;
    const [ask] = top.asks;
    state.book =
      bid === undefined || ask === undefined
        ? null
        : {
            ...{ time, received, bid: bid[0], ask: ask[0] },
            ...{ bidNumber: decimalNumber(bid[0]), askNumber: decimalNumber(ask[0]) },
            ...{ z: figures?.ofi_z ?? null, zRaw: figures?.ofi_z_raw ?? null },
          };
    if (figures === null) return;
    state.seconds.ofi = { time, value: figures.ofi_z };
    const lag = state.trade === null ? null : time - state.trade.time;
    this.tell('ofi', time, received, ['ofi', last], {
      ofi_value: figures.ofi_value,
      ofi_z: figures.ofi_z,
      ofi_z_raw: figures.ofi_z_raw,
      ema_ofi: figures.ema_ofi,
      scale: 1,
      lag_ms_to_trade: lag,
      alignment: alignmentOf(lag),
      warmup: figures.warmup,
      std_zero: figures.std_zero,
      session_reset: isReset,
      bad_points: bad,
    });
  }

  private tellBook({ time, received, first, last, prev, top, before }: BookChange): void {
    const { bids, asks } = top;
    const [bid, ask] = [bids[0]?.[0] ?? null, asks[0]?.[0] ?? null];
    const [bidNumber, askNumber] = [bid, ask].map((price) => (price === null ? null : decimalNumber(price)));
    const mid = bidNumber == null || askNumber == null ? null : (bidNumber + askNumber) / 2;
    const bidChanges = changesOf(bids, before?.bids);
    const askChanges = changesOf(asks, before?.asks);
    const own: Record<string, unknown> = {
      first_id: first,
      last_id: last,
      prev_last_id: prev,
      best_bid: bid,
      best_ask: ask,
      mid,
      spread_bps: mid === null ? null : ((askNumber! - bidNumber!) / mid) * 1e4,
      levels: Math.min(bids.length, asks.length),
      d_bid_qty_agg: sumOf(bidChanges),
      d_ask_qty_agg: sumOf(askChanges),
    };
    for (let i = 0; i < TOP_LEVELS; i++) own[`d_b${i}`] = bidChanges[i];
    for (let i = 0; i < TOP_LEVELS; i++) own[`d_a${i}`] = askChanges[i];
    for (const [side, levels] of [
      ['bid', bids],
      ['ask', asks],
    ] as const) {
      for (let i = 0; i < TOP_LEVELS; i++) {
        own[`${side}${i + 1}_p`] = levels[i]?.[0] ?? null;
        own[`${side}${i + 1}_q`] = levels[i]?.[1] ?? null;
      }
    }
    this.tell('orderbook', time, received, ['orderbook', last], own);
  }

  private takeBookGap({ gap, restarts }: BookItem & { type: 'book_gap' }): void {
    const { state } = this;
    state.restarts = restarts;
    state.book = null;
    state.seconds.ofi = null;
    this.tellBookGap(gap);
  }

  private tellBookGap({ cause, time, received, from, to }: BookGap): void {
    this.tellGap(time, received, cause, { from, to });
  }

  // --------------------------------------------------------------------------------------------------------------- trades

  private takeTrade({ ordered, figures }: TradeItem): void {
    const { state } = this;
    const { trade, late, gap, missing } = ordered;
    const { time, received, price: text, id } = trade;
    state.missing = missing;
    this.takeLate(late);
    if (gap !== null) this.tellGap(time, received, 'missing_trades', gap);
    const price = decimalNumber(text);
    const { seconds, book } = state;
    state.trade = { time, received };
    Object.assign(state, { tps: figures.tps, cvdZ: figures.z_cvd, cvdZRaw: figures.z_raw });
    countTrade(seconds, time, price);
    seconds.received = Math.max(seconds.received, received);
    seconds.fills = book === null ? null : { buy: book.askNumber, sell: book.bidNumber };
    seconds.cvd = { time, value: figures.z_cvd };
    this.tellPrice(trade, false);
    this.tell('cvd', time, received, ['cvd', id], {
      trade_id: id,
      cvd: figures.cvd,
      delta: figures.delta,
      late_delta: figures.late_delta,
      z_raw: figures.z_raw,
      z_cvd: figures.z_cvd,
      scale: figures.scale,
      sigma_floor: figures.sigma_floor,
      floor_used: figures.floor_used,
    });
    const lag = book === null ? null : time - book.time;
    const fusion = takeFusion(state.fusion, book?.z ?? null, figures.z_cvd, time, lag);
    seconds.fusion = { time, value: fusion.score };
    const newest = Math.max(received, book?.received ?? 0);
    this.tellFusion(id, time, newest, fusion, lag);
    const moment = { time, price, ofi: book?.zRaw ?? null, cvd: figures.z_raw, lag };
    for (const event of takeEvents(state.events, moment)) this.tellEvent(id, time, newest, event, lag);
  }

  /** Trades that came after later ones: they are told now, and the seconds that they belong to are told again. */
  takeLate(trades: readonly Trade[]): void {
    for (const each of trades) this.takeLateTrade(each);
  }

  private takeLateTrade(trade: Trade): void {
    const { seconds } = this.state;
    const { time, received, price, id } = trade;
    this.tellPrice(trade, true);
    const start = Math.floor(time / 1000) * 1000;
    if (seconds.open !== null && start >= seconds.open) {
      countTrade(seconds, time, decimalNumber(price));
      return;
    }
    const corrected = correctSeconds(seconds, time, received, decimalNumber(price));
    for (const each of corrected) this.tellSecond(each);
    // What is told of a second longer ago stays: that it is not right any more is said.
    if (corrected.length === 0) this.tellGap(time, received, 'late_trade', { from: id, to: id });
  }

  private tellPrice(trade: Trade, late: boolean): void {
    const { time, received, price, quantity, is_maker, id } = trade;
    // The book of its time is gone, for a trade that came late.
    const book = late ? null : this.state.book;
    this.tell('prices', time, received, [id, price], {
      price,
      qty: quantity,
      is_buyer_maker: is_maker,
      agg_trade_id: id,
      best_buy_fill: book?.ask ?? null,
      best_sell_fill: book?.bid ?? null,
      late,
    });
  }

  private tellFusion(id: string, time: number, received: number, figures: FusionFigures, lag: number | null): void {
    const more = {
      components_json: JSON.stringify({ ofi: figures.comp_ofi, cvd: figures.comp_cvd }),
      calibration_k: CALIBRATION_K,
      lag_ms_ob: lag,
      // A score is told with a trade: that is the newest there is.
      lag_ms_trade: 0,
    };
    this.tell('fusion', time, received, ['fusion', id], Object.assign({}, figures, more));
  }

  private tellEvent(id: string, time: number, received: number, event: MarketEvent, lag: number | null): void {
    const { event_type, meta, strength_score, direction, trigger_by } = event;
    this.tell('events', time, received, ['events', event_type, id], {
      ...{ event_type, meta_json: JSON.stringify(meta) },
      ...{ ofi_z: this.state.book?.zRaw ?? null, cvd_z: this.state.cvdZRaw },
      ...{ strength_score, direction, trigger_by, lag_ms_ob: lag, lag_ms_trade: 0 },
    });
  }

  private tellGap(time: number, received: number, cause: string, span: object): void {
    const meta = { cause, ...span };
    this.tell('events', time, received, ['events', 'gap', cause, JSON.stringify(span)], {
      ...{ event_type: 'gap', meta_json: JSON.stringify(meta), ofi_z: null, cvd_z: null, strength_score: null },
      ...{ direction: null, trigger_by: cause, lag_ms_ob: null, lag_ms_trade: null },
    });
  }

  // -------------------------------------------------------------------------------------------------------------- seconds

  private tellSecond({ second, revision, vol_bucket, regime }: KeptSecond): void {
    const { start, received, ...figures } = second;
    // An empty second stands on no frame: it was over when it was.
    const arrived = received === 0 ? start + 1000 : received;
    const row = { second_ts: start, revision, ...figures };
    this.tell('features', start, arrived, ['features', revision], row, { vol_bucket, regime });
  }

  private regime(): 'Active' | 'Quiet' | null {
    const { tps } = this.state;
    return tps === null ? null : tps >= ACTIVE_TPS ? 'Active' : 'Quiet';
  }

  private tell(
    kind: HarvestKind,
    time: number,
    received: number,
    identity: (string | number)[],
    own: object,
    labels?: { vol_bucket: VolBucket | null; regime: 'Active' | 'Quiet' | null },
  ): void {
    const { exchange, market_type, symbol } = this.stream;
    const latency = received - time;
    const raw = isRaw(kind);
    const head = {
      kind,
      ts_ms: time,
      recv_ts_ms: received,
      exchange,
      market_type,
      symbol,
      row_id: rowId(exchange, market_type, symbol, time, ...identity),
      latency_ms: latency < 0 ? null : latency,
      reconnect_count: this.state.restarts,
      queue_dropped: this.state.missing,
    };
    const { date, hour } = this.placeAt(time);
    const place = { date, hour, source_tier: raw ? ('raw' as const) : ('preview' as const) };
    // Spreading so many members is twenty times slower than assigning them (measured).
    const row: HarvestRow = raw
      ? Object.assign(head, own, place)
      : Object.assign(head, own, this.labels(time, labels), place);
    this.write(row);
  }

  /** Most rows are of the hour of the one before. */
  private placeAt(time: number): { date: string; hour: string } {
    const hour = Math.floor(time / HOUR_MS);
    if (this.place.at !== hour) this.place = { at: hour, ...dateHour(time) };
    return this.place;
  }

  private labels(time: number, known?: { vol_bucket: VolBucket | null; regime: 'Active' | 'Quiet' | null }): object {
    const regime = known === undefined ? this.regime() : known.regime;
    const vol_bucket = known === undefined ? this.state.seconds.vol : known.vol_bucket;
    const scenario =
      regime === null || vol_bucket === null ? null : `${regime[0] === 'A' ? 'A' : 'Q'}_${vol_bucket[0]}`;
    const hour = Math.floor(time / HOUR_MS) % 24;
    const session = SESSIONS[Math.floor(hour / SESSION_HOURS)]!;
    return { session, regime, vol_bucket, scenario_2x2: scenario, fee_tier: FEE_TIER };
  }
}

function receivedOf(item: BookItem | TradeItem): number {
  if (item.type === 'trade') return item.ordered.trade.received;
  return item.type === 'book' ? item.change.received : item.gap.received;
}

/** How well a book and the trade before it belong together. @param lag ms; null: there was no trade */
function alignmentOf(lag: number | null): 'strict' | 'fallback' | 'none' {
  if (lag === null) return 'none';
  return lag <= STRICT_MS ? 'strict' : 'fallback';
}

/** By index, what each level's quantity is more than before; null where the level is not there now or was not before. Exact decimal text. */
function changesOf(now: readonly Level[], before: readonly Level[] | undefined): (string | null)[] {
  return Array.from({ length: TOP_LEVELS }, (_, i) => {
    const [level, other] = [now[i], before?.[i]];
    return level === undefined || other === undefined ? null : subtract(level[1], other[1]);
  });
}

function sumOf(changes: readonly (string | null)[]): string | null {
  const known = changes.filter((each) => each !== null);
  if (known.length === 0) return null;
  return known.reduce((sum, each) => subtract(sum, each.startsWith('-') ? each.slice(1) : `-${each}`));
}
