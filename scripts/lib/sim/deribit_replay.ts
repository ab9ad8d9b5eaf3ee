/**
 * A recorded session as Deribit's source of data. A frame goes to who subscribed its channel, in the recorded order and as
 * recorded; a channel's other intervals give the same frames with the channel's name changed to the one that was asked for.
 */
import type { DeribitSource } from './deribit.ts';
import { notification } from './deribit_book.ts';
import { float } from './deribit_contracts.ts';
import {
  type BookState,
  bookAt,
  type Frame,
  familyOf,
  type RecordedTrade,
  type Recording,
  readRecording,
  recordedIdentity,
  snapshotText,
} from './deribit_recording.ts';
import { choiceOf, DEPTHS, type Params, RpcError, rangeOf, textOf } from './deribit_rpc.ts';
import type { Verdict } from './faults.ts';
import type { StreamLedger } from './ledger.ts';
import { encodeFrame, type Peer, type Wire } from './venue.ts';

/** Frames begin to flow this long after a connection's last subscription, so that several requests take part from the start. */
const SETTLE_MS = 50;
/** Frames per step of the simulator's clock at the highest speed: more than a reader takes, little enough to let others in. */
const FRAMES_PER_STEP = 1000;

/** What happened to a frame so far. */
const UNTOUCHED = 0;
const WITHHELD = 1;
const SENT = 2;

export interface DeribitReplaySpeed {
  readonly speed: number | 'max';
  /** Place of a book's change (from 1) that is not written; 0 = none. */
  readonly dropDiff: number;
}

/** One connection's way through the session. */
interface Reader {
  readonly peer: Peer;
  /** The names under which it subscribed, by family. */
  readonly channels: Map<string, string>;
  /** Books that it asked for since the last step. */
  readonly newBooks: Set<string>;
  subscribedAt: number;
  cursor: number;
  isFlowing: boolean;
  held: { family: string; frame: string } | null;
}

export class DeribitReplay implements DeribitSource {
  readonly servesRaw = true;
  private readonly frames: readonly Frame[];
  private readonly readers = new Map<Peer, Reader>();
  private readonly families: ReadonlyMap<string, string>;
  private readonly states: Uint8Array;
  private readonly ledgers = new Map<string, StreamLedger>();
  private readonly snapshots = new Set<string>();
  /** With a shared clock: when it started, and how far it is. */
  private clockStart: number | null = null;
  private position = 0;
  private pausedAt: number | null = null;
  private hasFinished = false;

  /** Opens a session in cryptofeed's format. @throws OperatorError saying what is wrong with it */
  static open(exchange: string, file: string, wire: Wire, { speed, dropDiff }: DeribitReplaySpeed): DeribitReplay {
    return new DeribitReplay(exchange, readRecording(file, dropDiff), wire, speed);
  }

  constructor(
    exchange: string,
    private readonly recording: Recording,
    private readonly wire: Wire,
    private readonly speed: number | 'max',
  ) {
    this.frames = recording.frames;
    this.states = new Uint8Array(this.frames.length);
    this.families = new Map(this.frames.map(({ family, instrument }) => [family, instrument]));
    for (const [family, instrument] of this.families) {
      const type = family.startsWith('book.') ? 'orderbook_update' : family.startsWith('trades.') ? 'trade' : null;
      if (type !== null) this.ledgers.set(family, wire.ledger.stream(recordedIdentity(exchange, instrument, type)));
    }
  }

  get sample(): string {
    return this.frames[0]?.instrument ?? '';
  }

  serves(channel: string): boolean {
    return this.families.has(familyOf(channel));
  }

  subscribe(peer: Peer, channel: string): void {
    const family = familyOf(channel);
    let reader = this.readers.get(peer);
    if (!reader) {
      const empty = { channels: new Map(), newBooks: new Set<string>(), held: null };
      reader = { peer, ...empty, subscribedAt: 0, cursor: 0, isFlowing: false };
      this.readers.set(peer, reader);
    }
    reader.subscribedAt = this.wire.clock();
    if (family.startsWith('book.') && !reader.channels.has(family)) reader.newBooks.add(family);
    reader.channels.set(family, channel);
  }

  unsubscribe(peer: Peer, channel: string): void {
    const reader = this.readers.get(peer);
    if (reader?.channels.get(familyOf(channel)) === channel) reader.channels.delete(familyOf(channel));
  }

  leave(peer: Peer): void {
    this.readers.delete(peer);
  }

  result(method: string, params: Params): string | undefined {
    switch (method) {
      case 'get_instruments':
        return this.instruments(params);
      case 'get_order_book':
        this.wire.ledger.counters.snapshots++;
        return this.orderBook(this.instrument(params), Number(choiceOf(params, 'depth', DEPTHS, '5')));
      case 'get_last_trades_by_instrument':
      case 'get_last_trades_by_instrument_and_time':
        return this.trades(this.instrument(params), params);
    }
    return undefined;
  }

  advance(now: number): void {
    if (this.pausedAt !== null) return;
    for (const reader of this.readers.values()) {
      if (reader.isFlowing || now - reader.subscribedAt < SETTLE_MS) continue;
      reader.isFlowing = true;
      if (this.speed !== 'max') reader.cursor = this.position;
    }
    if (this.speed !== 'max') this.followClock(now, this.speed);
    for (const reader of this.readers.values()) if (reader.isFlowing) this.feed(reader);
    this.hasFinished ||= this.areReadersDone();
  }

  stop(): void {
    this.pausedAt ??= this.wire.clock();
  }

  start(now: number): void {
    if (this.pausedAt === null) return;
    if (this.clockStart !== null) this.clockStart += now - this.pausedAt;
    this.pausedAt = null;
  }

  done(): boolean {
    return this.readers.size === 0 ? this.hasFinished : this.areReadersDone();
  }

  private areReadersDone(): boolean {
    return (
      this.readers.size > 0 &&
      [...this.readers.values()].every(({ peer, cursor }) => cursor === this.frames.length && peer.unread === 0)
    );
  }

  /** Moves the shared clock, which starts with the first reader. */
  private followClock(now: number, speed: number): void {
    if (this.clockStart === null) {
      if (![...this.readers.values()].some(({ isFlowing }) => isFlowing)) return;
      this.clockStart = now;
    }
    const until = (this.frames[0]?.at ?? 0) + (now - this.clockStart) * speed;
    while (this.position < this.frames.length && (this.frames[this.position] as Frame).at <= until) this.position++;
  }

  private feed(reader: Reader): void {
    // A book that is joined after its recorded snapshot begins with one of the place where the reader is.
    for (const family of reader.newBooks) this.welcome(reader, family);
    reader.newBooks.clear();
    const end = this.speed === 'max' ? Math.min(this.frames.length, reader.cursor + FRAMES_PER_STEP) : this.position;
    while (reader.cursor < end && !reader.peer.full) this.step(reader);
  }

  private welcome(reader: Reader, family: string): void {
    const book = bookAt(this.frames, family, reader.cursor);
    const channel = reader.channels.get(family);
    if (book === null || channel === undefined) return;
    reader.peer.push(encodeFrame(notification(channel, snapshotText(this.families.get(family) ?? '', book))));
    this.noteSnapshot(family, book.id);
  }

  /** Gives the reader its next frame, if it asked for that channel and no fault takes it. */
  private step(reader: Reader): void {
    const place = reader.cursor++;
    const frame = this.frames[place] as Frame;
    const channel = reader.channels.get(frame.family);
    if (channel !== undefined) this.write(reader, frame, place, channel);
    if (reader.cursor === this.frames.length) this.release(reader);
  }

  private write(reader: Reader, frame: Frame, place: number, channel: string): void {
    const verdict = this.verdict(reader, frame);
    if (verdict === 'withhold') {
      this.note(frame, place, WITHHELD);
      return;
    }
    const named = `"channel":"${frame.channel}"`;
    const encoded = encodeFrame(
      channel === frame.channel ? frame.text : frame.text.replace(named, `"channel":"${channel}"`),
    );
    this.note(frame, place, SENT);
    if (verdict === 'hold') {
      reader.held = { family: frame.family, frame: encoded };
      return;
    }
    reader.peer.push(encoded);
    if (verdict === 'twice') {
      reader.peer.push(encoded);
      this.wire.ledger.counters.repeated++;
    }
    if (reader.held?.family === frame.family) {
      this.wire.ledger.counters.reordered++;
      this.release(reader);
    }
  }

  private verdict(reader: Reader, frame: Frame): Verdict {
    const { faults } = this.wire;
    if (frame.isKeptBack) return 'withhold';
    if (frame.kind === null || faults.idle || reader.held !== null) return 'send';
    return faults.verdict(recordedIdentity('', frame.instrument, frame.kind).symbol, frame.kind);
  }

  private release(reader: Reader): void {
    if (reader.held) reader.peer.push(reader.held.frame);
    reader.held = null;
  }

  /** A frame's keys count once, whoever gets it; they are withheld only as long as nobody got it. */
  private note(frame: Frame, place: number, state: typeof WITHHELD | typeof SENT): void {
    const before = this.states[place] ?? UNTOUCHED;
    if (before >= state) return;
    this.states[place] = state;
    if (state === SENT && frame.book?.type === 'snapshot') this.noteSnapshot(frame.family, frame.book.change_id);
    const ledger = this.ledgers.get(frame.family);
    if (!ledger) {
      if (state === SENT) this.wire.ledger.counters.reading_frames++;
      return;
    }
    for (const key of frame.keys) {
      if (before === WITHHELD) ledger.unwithhold();
      if (state === WITHHELD) ledger.withhold();
      else ledger.record(key);
    }
  }

  private noteSnapshot(family: string, id: number): void {
    const name = `${family} ${id}`;
    if (!this.snapshots.has(name)) this.wire.ledger.counters.book_snapshots++;
    this.snapshots.add(name);
  }

  private instruments(params: Params): string {
    const currency = textOf(params, 'currency');
    const lists = [...this.recording.lists].filter(([name]) => currency === 'any' || currency === name);
    const kind = params.kind ?? 'any';
    return JSON.stringify(lists.flatMap(([, list]) => list.filter((each) => kind === 'any' || kind === each.kind)));
  }

  private orderBook(instrument: string, depth: number): string {
    const { id, timestamp, bids, asks } = this.bookNow(instrument);
    const side = (levels: BookState['bids']): string =>
      `[${levels
        .slice(0, depth)
        .map(([price, amount]) => `[${float(price)},${float(amount)}]`)
        .join(',')}]`;
    return (
      `{"timestamp":${timestamp},"state":"open","instrument_name":"${instrument}","change_id":${id},` +
      `"bids":${side(bids)},"asks":${side(asks)}}`
    );
  }

  /** The book where its furthest reader is, or where the clock is. */
  private bookNow(instrument: string): BookState {
    const family = `book.${instrument}`;
    const cursors = [...this.readers.values()]
      .filter(({ channels }) => channels.has(family))
      .map(({ cursor }) => cursor);
    const place = this.speed === 'max' ? Math.max(0, ...cursors) : this.position;
    return bookAt(this.frames, family, place) ?? { id: 0, timestamp: 0, bids: [], asks: [] };
  }

  /** With a clock there is no future; without one each connection has its own present, so the whole session is past. */
  private trades(instrument: string, params: Params): string {
    const range = rangeOf(params);
    const known = this.speed === 'max' ? this.frames : this.frames.slice(0, this.position);
    const isWanted = ({ instrument_name: name, trade_seq: sequence, timestamp }: RecordedTrade): boolean =>
      name === instrument &&
      sequence >= range.fromSequence &&
      sequence <= range.toSequence &&
      timestamp >= range.from &&
      timestamp <= range.to;
    const found = known.flatMap(({ trades }) => trades.filter(isWanted));
    if (range.descending) found.reverse();
    return JSON.stringify({ trades: found.slice(0, range.count), has_more: found.length > range.count });
  }

  private instrument(params: Params): string {
    const name = textOf(params, 'instrument_name');
    if (![...this.families.values()].includes(name)) throw new RpcError(10020, 'invalid_or_unsupported_instrument');
    return name;
  }
}
