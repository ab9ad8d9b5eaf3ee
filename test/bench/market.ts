/** Frames for the bench: recorded ones when they are there, and made ones that are the same in every run. */
import { existsSync } from 'node:fs';
import { RECORDED, type RecordedLine, readSession } from '../fixtures.ts';

/** When the first frame is said to have arrived, µs; each other one this much later, so that no time is the text of the last. */
export const RECEIVED_AT = 1_723_161_255_400_000;
export const RECEIVED_STEP = 1037;

/** Frames of one product, with the depth answer that their diffs stand on. */
export interface Session {
  product: 'spot' | 'usdm';
  /** The venue's id of the one instrument. */
  instrument: string;
  trades: string[];
  /** In order; `null` is the place where the snapshot arrived. */
  diffs: (string | null)[];
  /** The depth answer as text: each pass parses its own, since tardis-dev writes into it. */
  snapshot: string;
}

/** Changed levels in each made diff. */
const CHANGES = 20;
const SNAPSHOT_LEVELS = 1000;
/** Ticks from the market that changes lie off on average, far ones included: most of a real diff is near the top. */
const MEAN_DISTANCE = 40;
/** Made frames are this far apart in venue time: the depth stream's own pace. */
const DIFF_MS = 100;
const START_MS = 1_723_161_255_000;
/** Ticks of 0.01 at the start. */
const START_TICK = 6_183_763;

/** The recorded sessions, or null when they are not there. */
export function recordedSessions(): Session[] | null {
  if (!existsSync(RECORDED.spot) || !existsSync(RECORDED.usdm)) return null;
  return [split('spot', 'BTCUSDT', readSession(RECORDED.spot)), split('usdm', 'ETHUSDT', readSession(RECORDED.usdm))];
}

function split(product: Session['product'], instrument: string, lines: RecordedLine[]): Session {
  const snapshot = lines.find((line) => line.raw.startsWith('{"lastUpdateId"'))!;
  const depth = lines.filter((line) => line === snapshot || line.raw.includes('@depth'));
  return {
    product,
    instrument,
    trades: lines.filter((line) => line.raw.includes('@trade')).map((line) => asReceived(line.raw)),
    diffs: depth.map((line) => (line === snapshot ? null : asReceived(line.raw))),
    snapshot: snapshot.raw,
  };
}

/** A string of its own, as a socket gives it; a slice of the whole file would be another kind of string to V8. */
function asReceived(text: string): string {
  return Buffer.from(text).toString();
}

/** Trades of both products in the shape of the recorded ones. */
export function madeTrades(count: number): Session[] {
  const random = generator(7);
  const trade = (product: Session['product'], index: number): string => {
    const price = ((START_TICK + random(2000)) / 100).toFixed(2);
    const time = START_MS + index * 35;
    const text =
      product === 'spot'
        ? `{"stream":"btcusdt@trade","data":{"e":"trade","E":${time + 1},"s":"BTCUSDT","t":${3_735_683_259 + index},"p":"${price}000000","q":"${quantity(random)}","T":${time},"m":${random(2) === 0},"M":true}}`
        : `{"stream":"ethusdt@trade","data":{"e":"trade","E":${time + 1},"T":${time},"s":"ETHUSDT","t":${4_308_068_523 + index},"p":"${price}","q":"${(1 + random(9000)) / 1000}","X":"MARKET","m":${random(2) === 0}}}`;
    return asReceived(text);
  };
  const session = (product: Session['product'], instrument: string): Session => ({
    product,
    instrument,
    trades: Array.from({ length: count }, (_, index) => trade(product, index)),
    diffs: [],
    snapshot: '',
  });
  return [session('spot', 'BTCUSDT'), session('usdm', 'ETHUSDT')];
}

/** A spot session of diffs with CHANGES changed levels each around a market that moves, ids chained, never crossed. */
export function madeDiffs(count: number): Session {
  const random = generator(11);
  const bids = new Map<number, string>();
  const asks = new Map<number, string>();
  let bid = START_TICK;
  for (let i = 0; i < SNAPSHOT_LEVELS; i++) {
    bids.set(bid - i * 2, quantity(random));
    asks.set(bid + 1 + i * 2, quantity(random));
  }
  let id = 50_093_239_218;
  const levels = (side: Map<number, string>) => [...side].map(([tick, size]) => [priceText(tick), size]);
  const snapshot = JSON.stringify({ lastUpdateId: id, bids: levels(bids), asks: levels(asks) });
  const diffs: (string | null)[] = [null];
  for (let i = 0; i < count; i++) {
    bid += random(5) - 2;
    const changes = changedLevels(bid, bids, asks, random);
    const [b, a] = (['bids', 'asks'] as const).map((side) =>
      changes.filter((each) => each.side === side).map((each) => [priceText(each.tick), each.size]),
    );
    const first = id + 1;
    id += 1 + random(30);
    diffs.push(
      asReceived(
        JSON.stringify({
          stream: 'btcusdt@depth@100ms',
          data: { e: 'depthUpdate', E: START_MS + i * DIFF_MS, s: 'BTCUSDT', U: first, u: id, b, a },
        }),
      ),
    );
  }
  return { product: 'spot', instrument: 'BTCUSDT', trades: [], diffs, snapshot };
}

interface Change {
  side: 'bids' | 'asks';
  tick: number;
  size: string;
}

/** What changes when the best bid is at `bid`: levels on the wrong side of it go, others come, change or go. */
function changedLevels(
  bid: number,
  bids: Map<number, string>,
  asks: Map<number, string>,
  random: (below: number) => number,
): Change[] {
  const changes = new Map<string, Change>();
  const change = (side: Change['side'], tick: number, size: string) => {
    changes.set(`${side}${tick}`, { side, tick, size });
    const book = side === 'bids' ? bids : asks;
    if (size === ZERO) book.delete(tick);
    else book.set(tick, size);
  };
  for (let tick = bid - 3; tick <= bid + 4; tick++) {
    if (tick > bid && bids.has(tick)) change('bids', tick, ZERO);
    if (tick <= bid && asks.has(tick)) change('asks', tick, ZERO);
  }
  change('bids', bid, quantity(random));
  change('asks', bid + 1, quantity(random));
  while (changes.size < CHANGES) {
    const distance = 1 + Math.floor(-Math.log(1 - random(10_000) / 10_000) * MEAN_DISTANCE);
    const side = random(2) === 0 ? 'bids' : 'asks';
    const tick = side === 'bids' ? bid - distance : bid + 1 + distance;
    const present = (side === 'bids' ? bids : asks).has(tick);
    change(side, tick, present && random(2) === 0 ? ZERO : quantity(random));
  }
  // Binance lists bids from the best down and asks from the best up.
  return [...changes.values()].sort((a, b) =>
    a.side !== b.side ? (a.side === 'bids' ? -1 : 1) : a.side === 'bids' ? b.tick - a.tick : a.tick - b.tick,
  );
}

const ZERO = '0.00000000';

function quantity(random: (below: number) => number): string {
  return `${random(9)}.${String(1 + random(99_999)).padStart(5, '0')}000`;
}

function priceText(tick: number): string {
  return `${(tick / 100).toFixed(2)}000000`;
}

/** Whole numbers below a bound, the same in every run (Park and Miller). */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => (state = (state * 48_271) % 2_147_483_647) % below;
}
