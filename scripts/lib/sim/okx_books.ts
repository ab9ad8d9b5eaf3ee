/** OKX's `books`: the 400 best levels of each side, told as a snapshot and then as what changed of them. */

import type { Market } from './market.ts';
import { type OkxInstrument, okxIdentity, sizeText } from './okx_instruments.ts';
import { encodeFrame, type Peer, type Topic, type Wire } from './venue.ts';

/** Levels a side that the venue keeps for its readers: what falls out of them is told as removed. */
const LEVELS = 400;
/** A book that rests is told so this often. */
const KEEP_ALIVE_MS = 60_000;

/** Sizes in lots by price index, best first. */
type Side = Map<number, number>;

export class OkxBooks {
  readonly topic: Topic;
  /** Frames that say that nothing changed go to the same readers, and make no row. */
  private readonly resting: Topic;
  private bids: Side;
  private asks: Side;
  private seqId: number;
  private time: number;
  private toldAt: number;
  /** Snapshots that a fault lets come after the update that follows them. */
  private late: { peer: Peer; frame: string }[] = [];

  constructor(
    exchange: string,
    private readonly listed: OkxInstrument,
    private readonly market: Market,
    private readonly wire: Wire,
  ) {
    const { symbol, instrument } = listed;
    const ledger = wire.ledger.stream(okxIdentity(exchange, listed, 'orderbook_update'));
    const name = `books:${instrument}`;
    this.topic = wire.topic(name, 'orderbook_update', symbol, ledger);
    const { subscribers } = this.topic;
    this.resting = wire.topic(name, 'orderbook_update', symbol, null, { subscribers, counter: 'reading_frames' });
    [this.bids, this.asks] = this.sides();
    this.seqId = market.updateId;
    this.time = Math.floor(wire.clock());
    this.toldAt = this.time;
  }

  /** The time of one update is over: tells what changed within the levels that are kept, if anything did. */
  update(time: number): void {
    const [bids, asks] = this.sides();
    const changed = [changesOf(this.asks, asks, 1), changesOf(this.bids, bids, -1)] as const;
    if (changed[0].length + changed[1].length === 0) return;
    const previous = this.seqId;
    [this.bids, this.asks, this.seqId, this.time, this.toldAt] = [bids, asks, this.market.updateId, time, time];
    if (this.topic.subscribers.size === 0) return;
    const [askLevels, bidLevels] = changed.map((side) => this.levels(side));
    const text = this.frame('update', `"asks":[${askLevels}],"bids":[${bidLevels}]`, previous);
    this.wire.publish(this.topic, this.seqId, text);
    this.tellLate();
  }

  /** Tells readers of a resting book that it still stands where it stood. */
  keepAlive(now: number): void {
    if (now - this.toldAt < KEEP_ALIVE_MS) return;
    this.toldAt = now;
    this.time = Math.floor(now);
    if (this.topic.subscribers.size === 0) return;
    this.wire.publish(this.resting, this.seqId, this.frame('update', '"asks":[],"bids":[]', this.seqId));
  }

  /** Gives a new reader the snapshot on which its updates build. It is no row of the ledger: each reader has its own. */
  greet(peer: Peer): void {
    const text = this.frame('snapshot', this.text(LEVELS), -1);
    const { faults, ledger } = this.wire;
    const verdict = faults.idle ? 'send' : faults.verdict(this.listed.symbol, 'orderbook_update');
    if (verdict === 'withhold') return;
    ledger.counters.book_snapshots++;
    const frame = encodeFrame(text);
    if (verdict === 'hold') {
      this.late.push({ peer, frame });
      return;
    }
    peer.push(frame);
    if (verdict !== 'twice') return;
    peer.push(frame);
    ledger.counters.repeated++;
  }

  /** Ends all waiting for a frame that may not come. */
  release(): void {
    for (const topic of [this.topic, this.resting]) this.wire.release(topic);
    this.tellLate();
  }

  /** The answer over REST: the book as the readers have it, `limit` levels a side. */
  answer(limit: number): string {
    return `{${this.text(limit)},"ts":"${this.time}","seqId":${this.seqId}}`;
  }

  private tellLate(): void {
    for (const { peer, frame } of this.late.splice(0)) {
      if (!this.topic.subscribers.has(peer)) continue;
      peer.push(frame);
      this.wire.ledger.counters.reordered++;
    }
  }

  private sides(): [bids: Side, asks: Side] {
    const { market } = this;
    return [
      new Map(market.levels('bid', LEVELS).map((index) => [index, market.bidAt(index)])),
      new Map(market.levels('ask', LEVELS).map((index) => [index, market.askAt(index)])),
    ];
  }

  private text(limit: number): string {
    const best = (side: Side): string => this.levels([...side].slice(0, limit));
    return `"asks":[${best(this.asks)}],"bids":[${best(this.bids)}]`;
  }

  private frame(action: string, sides: string, previous: number): string {
    return (
      `{"arg":{"channel":"books","instId":"${this.listed.instrument}"},"action":"${action}","data":[{${sides},` +
      `"ts":"${this.time}","checksum":0,"seqId":${this.seqId},"prevSeqId":${previous}}]}`
    );
  }

  private levels(levels: readonly (readonly [index: number, lots: number])[]): string {
    return levels.map(([index, lots]) => levelText(this.listed, this.market, index, lots)).join(',');
  }
}

/** One level: price, size, a zero that means nothing any more, and a number of orders. */
export function levelText(listed: OkxInstrument, market: Market, index: number, lots: number): string {
  const orders = lots === 0 ? 0 : 1 + (lots % 7);
  return `["${priceText(market, index)}","${sizeText(listed, lots)}","0","${orders}"]`;
}

/** A price as the venue prints it. */
export function priceText(market: Market, index: number): string {
  return trimmed(market.priceText(index));
}

/** Decimal text without zeros that carry no value. */
export function trimmed(text: string): string {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** What is new, other or gone (0) since `before`, in the order of prices given by `direction`. */
function changesOf(before: Side, after: Side, direction: 1 | -1): [index: number, lots: number][] {
  const changed: [number, number][] = [];
  for (const [index, lots] of after) if (before.get(index) !== lots) changed.push([index, lots]);
  for (const index of before.keys()) if (!after.has(index)) changed.push([index, 0]);
  return changed.sort(([one], [other]) => (one - other) * direction);
}
