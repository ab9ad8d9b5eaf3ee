/** Trades and books for tests of the harvest: made by hand, or by a seeded market. */
import type { HarvestInput } from '../scripts/lib/harvest/input.ts';
import type { Level } from '../scripts/lib/rows.ts';

export const STREAM = {
  exchange: 'binance_derivatives',
  market_type: 'perpetual',
  symbol: 'BTC-USDT',
  instrument: 'BTCUSDT',
  data_source: 'demo',
} as const;

export function trade(
  id: number,
  time: number,
  quantity: string,
  taker: 'buy' | 'sell',
  price = '100',
  stream: Partial<Record<keyof typeof STREAM, string>> = {},
): HarvestInput {
  const row = {
    ...{ ...STREAM, ...stream },
    ...{ timestamp: time, received_at: (time + 20) * 1000, trade_id: String(id), sequence: null },
    ...{ price, quantity, side: taker, is_maker: taker === 'sell' },
  };
  return { type: 'trade', row } as unknown as HarvestInput;
}

interface Book {
  bids: Level[];
  asks: Level[];
}

/** A whole book that updates stand on. */
export function snapshot(id: number, time: number, { bids, asks }: Book, stream = {}): HarvestInput {
  const row = { ...STREAM, ...stream, timestamp: time, received_at: (time + 20) * 1000, last_update_id: id };
  const ids = { first_update_id: null, prev_update_id: null, is_snapshot: true };
  return { type: 'orderbook_update', row: { ...row, ...ids, bids, asks } } as unknown as HarvestInput;
}

/** An update that follows the one with the id `prev`. */
export function update(id: number, time: number, changed: Partial<Book>, prev = id - 1, stream = {}): HarvestInput {
  const row = { ...STREAM, ...stream, timestamp: time, received_at: (time + 20) * 1000, last_update_id: id };
  const ids = { first_update_id: prev + 1, prev_update_id: prev, is_snapshot: false };
  return {
    type: 'orderbook_update',
    row: { ...row, ...ids, bids: [], asks: [], ...changed },
  } as unknown as HarvestInput;
}

/** A sample of the whole book. */
export function sample(id: number, time: number, { bids, asks }: Book, stream = {}): HarvestInput {
  const row = { ...STREAM, ...stream, timestamp: time, received_at: (time + 20) * 1000, last_update_id: id };
  const best = {
    ...{ best_bid_price: bids[0]![0], best_bid_quantity: bids[0]![1] },
    ...{ best_ask_price: asks[0]![0], best_ask_quantity: asks[0]![1] },
  };
  return { type: 'orderbook', row: { ...row, ...best, bids, asks, verified: 'verified' } } as unknown as HarvestInput;
}

/** Six levels a side around 100, a tick of 1: quantities as given, the best first. */
export function bookOf(bids: string[] = ['5', '6', '7', '8', '9', '10'], asks = bids): Book {
  return {
    bids: bids.map((quantity, i) => [String(99 - i), quantity]),
    asks: asks.map((quantity, i) => [String(101 + i), quantity]),
  };
}

/** mulberry32: from 0 up to 1. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export interface MarketOptions {
  seed: number;
  from: number;
  seconds: number;
  symbol?: string;
  /** Trades and book updates a second. */
  trades?: number;
  updates?: number;
  /** Whole books are sampled so often, ms. */
  sampleMs?: number;
  /** How likely the price moves with an update, by the second. */
  moves?(second: number): number;
}

/** A market that wanders: its rows in the order of their time, books before trades, ids without holes. */
export function seededMarket(options: MarketOptions): HarvestInput[] {
  const {
    seed,
    from,
    seconds,
    symbol = 'BTC-USDT',
    trades = 4,
    updates = 10,
    sampleMs = 10_000,
    moves = () => 0.2,
  } = options;
  const random = randomOf(seed);
  const stream = { symbol, instrument: symbol.replace('-', '') };
  const quantities = new Map<number, number>();
  let mid = 10_000;
  const quantity = () => (1 + Math.floor(random() * 900)) / 100;
  for (let i = 1; i <= 60; i++) {
    quantities.set(mid - i, quantity());
    quantities.set(mid + i, quantity());
  }
  const levels = (side: 1 | -1, depth: number): Level[] =>
    [...quantities]
      .filter(([price]) => (price - mid) * side > 0)
      .sort(([one], [other]) => (one - other) * side)
      .slice(0, depth)
      .map(([price, size]) => [price.toFixed(1), size.toFixed(2)]);
  const book = () => ({ bids: levels(-1, 400), asks: levels(1, 400) });
  const out: HarvestInput[] = [];
  let [updateId, tradeId] = [1000, 1];
  out.push(snapshot(updateId, from, book(), stream));
  let sampledAt = Math.floor(from / sampleMs);
  const steps = seconds * updates;
  for (let step = 1; step <= steps; step++) {
    const time = from + Math.floor((step * 1000) / updates) + Math.floor(random() * 20);
    const changed = new Map<number, number>();
    // The price moves now and then; what it passes is taken.
    if (random() < moves(step / updates)) {
      mid += random() < 0.5 ? 1 : -1;
      if ((quantities.get(mid) ?? 0) > 0) {
        quantities.delete(mid);
        changed.set(mid, 0);
      }
    }
    for (let i = 0; i < 3; i++) {
      const price = mid + (1 + Math.floor(random() * 8)) * (random() < 0.5 ? 1 : -1);
      const size = quantity();
      quantities.set(price, size);
      changed.set(price, size);
    }
    for (const side of [1, -1]) {
      const price = mid + side;
      if (quantities.has(price)) continue;
      const size = quantity();
      quantities.set(price, size);
      changed.set(price, size);
    }
    const side = (sign: 1 | -1): Level[] =>
      [...changed]
        .filter(([price]) => (price - mid) * sign > 0)
        .map(([price, size]) => [price.toFixed(1), size.toFixed(2)]);
    // A level that the price has come to is on neither side any more: it is told with the bids.
    const gone: Level[] = [...changed].filter(([price]) => price === mid).map(([price]) => [price.toFixed(1), '0']);
    updateId += 1;
    out.push(
      update(updateId, time, { bids: [...side(-1), ...gone], asks: [...side(1), ...gone] }, updateId - 1, stream),
    );
    if (Math.floor(time / sampleMs) > sampledAt) {
      sampledAt = Math.floor(time / sampleMs);
      out.push(sample(updateId, time, book(), stream));
    }
    const due = random() * 2 * (trades / updates);
    for (let i = 0; i < Math.floor(due) + (random() < due % 1 ? 1 : 0); i++) {
      const isBuy = random() < 0.5;
      const price = (mid + (isBuy ? 1 : -1)).toFixed(1);
      // Now and then somebody is in a hurry.
      const size = (quantity() / 10) * (random() < 0.02 ? 20 : 1);
      out.push(trade(tradeId, time + i, size.toFixed(3), isBuy ? 'buy' : 'sell', price, stream));
      tradeId += 1;
    }
  }
  return out;
}

/** As lines of normalize.ts. */
export function lineOf({ type, row }: HarvestInput): string {
  return JSON.stringify({ type, ...row });
}
