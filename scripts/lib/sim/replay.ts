/** A recorded session of Binance as a venue's source of data: the recorded frames, and the book that goes with them. */
import { identity, type Product } from './binance.ts';
import type { KeyLedger } from './ledger.ts';
import { OnceCounter, OnceLedger } from './once_ledger.ts';
import { Playback, type ReplaySpeed } from './playback.ts';
import {
  type Frame,
  familyOf,
  type Instrument,
  isAggregate,
  kindOf,
  type RecordedTrades,
  type Recording,
  readRecording,
} from './recording.ts';
import type { BookSnapshot, Listed, Peer, Source, TradeRow, Wire } from './venue.ts';

export class Replay implements Source {
  readonly listed: readonly Listed[];
  readonly servesAnyRoute = true;
  private readonly playback: Playback;
  private readonly families: ReadonlySet<string>;
  /** Instruments whose book a connection follows from the beginning, and whose recorded snapshot was not asked for yet. */
  private readonly awaitsSnapshot = new Map<Peer, Set<string>>();

  /** Opens a session file. @throws OperatorError saying what is wrong with it. */
  static open(product: Product, exchange: string, file: string, wire: Wire, options: ReplaySpeed): Replay {
    return new Replay(readRecording(file, options.dropDiff), product, exchange, wire, options.speed);
  }

  constructor(
    private readonly recording: Recording,
    product: Product,
    exchange: string,
    wire: Wire,
    speed: number | 'max',
  ) {
    const { frames, instruments } = recording;
    this.listed = [...instruments.values()].map(({ listed }) => listed);
    this.families = new Set(frames.map(({ family }) => family));
    const ledgers = new Ledgers(product, exchange, wire);
    const played = frames.map((frame) => {
      const listed = instruments.get(frame.instrument)?.listed;
      const symbol = listed?.symbol ?? frame.instrument;
      return { ...frame, symbol, keys: [frame.id], ledger: listed ? ledgers.of(frame, listed) : null };
    });
    for (const listed of this.listed) ledgers.announce(listed);
    this.playback = new Playback(played, wire, speed, payloadOf);
  }

  subscribe(peer: Peer, stream: string): void {
    const family = this.familyOf(stream);
    const reader = this.playback.subscribe(peer, family);
    if (!reader || reader.isFlowing || kindOf(family) !== 'orderbook_update') return;
    const awaited = this.awaitsSnapshot.get(peer) ?? new Set();
    this.awaitsSnapshot.set(peer, awaited.add(family.split('@')[0]?.toUpperCase() ?? ''));
  }

  unsubscribe(peer: Peer, stream: string): void {
    this.playback.unsubscribe(peer, this.familyOf(stream));
  }

  leave(peer: Peer): void {
    this.playback.leave(peer);
    this.awaitsSnapshot.delete(peer);
  }

  book(name: string, limit: number): BookSnapshot | string {
    const { snapshot, book } = this.instrument(name);
    if (!snapshot || !book) return { lastUpdateId: 0, time: 0, changedAt: 0, bids: [], asks: [] };
    const family = `${name.toLowerCase()}@depth`;
    const beginner = [...this.playback.readers].find(
      ({ peer, families }) => families.has(family) && this.awaitsSnapshot.get(peer)?.has(name),
    );
    if (this.playback.speed === 'max' && beginner) {
      this.awaitsSnapshot.get(beginner.peer)?.delete(name);
      return snapshot;
    }
    return book.at(this.playback.past(family), limit) ?? snapshot;
  }

  trades(name: string, fromId: number | undefined, limit: number): TradeRow[] {
    return this.known(this.instrument(name).trades, fromId, limit);
  }

  aggregates(name: string, fromId: number | undefined, limit: number): TradeRow[] {
    const { trades, aggregates } = this.instrument(name);
    return this.known(aggregates.rows.length > 0 ? aggregates : trades, fromId, limit);
  }

  advance(now: number): void {
    this.playback.advance(now);
  }

  stop(): void {
    this.playback.stop();
  }

  start(now: number): void {
    this.playback.start(now);
  }

  done(): boolean {
    return this.playback.done();
  }

  /** Trades stand for aggregates where a session has none; aggregates never stand for trades, whose ids they do not have. */
  private familyOf(stream: string): string {
    const family = familyOf(stream);
    return isAggregate(family) && !this.families.has(family) ? family.replace(/aggTrade$/, 'trade') : family;
  }

  private known({ rows, places }: RecordedTrades, fromId: number | undefined, limit: number): TradeRow[] {
    // With a clock there is no future; without one each connection has its own present, so the whole session is past.
    const past = this.playback.past('');
    const known = this.playback.speed === 'max' ? rows : rows.filter((_, index) => (places[index] as number) < past);
    return fromId === undefined ? known.slice(-limit) : known.filter(({ id }) => id >= fromId).slice(0, limit);
  }

  private instrument(name: string): Instrument {
    const instrument = this.recording.instruments.get(name);
    if (!instrument) throw new Error(`no recording of ${name}`);
    return instrument;
  }
}

/** The ledger of each stream of a session. */
class Ledgers {
  private readonly ledgers = new Map<string, KeyLedger>();

  constructor(
    private readonly product: Product,
    private readonly exchange: string,
    private readonly wire: Wire,
  ) {}

  /** The two main types are told even when the session has nothing of them. */
  announce(listed: Listed): void {
    for (const dataType of ['trade', 'orderbook_update']) this.stream(listed, dataType);
  }

  of({ family, kind }: Frame, listed: Listed): KeyLedger | null {
    if (kind === 'book_ticker') return this.tickers(listed);
    if (kind === null) return null;
    // Spot's aggregates have ids of their own, as on the seeded venue.
    return this.stream(listed, this.product === 'spot' && isAggregate(family) ? 'agg_trade' : kind);
  }

  private stream(listed: Listed, dataType: string): KeyLedger {
    return this.kept(`${dataType} ${listed.instrument}`, () => {
      const { ledger } = this.wire;
      return new OnceLedger(ledger.stream(identity(this.product, this.exchange, listed, dataType)));
    });
  }

  private tickers(listed: Listed): KeyLedger {
    const { counters } = this.wire.ledger;
    return this.kept(`book_ticker ${listed.instrument}`, () => new OnceCounter(() => counters.book_tickers++));
  }

  private kept(name: string, make: () => KeyLedger): KeyLedger {
    let found = this.ledgers.get(name);
    if (!found) this.ledgers.set(name, (found = make()));
    return found;
  }
}

/** The frame without its wrapping, still as recorded. */
function payloadOf(text: string): string {
  return text.slice(text.indexOf('"data":') + '"data":'.length, -1);
}
