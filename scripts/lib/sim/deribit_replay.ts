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
import type { KeyLedger } from './ledger.ts';
import { OnceCounter, OnceLedger } from './once_ledger.ts';
import { Playback, type PlayedFrame, type Reader, type ReplaySpeed } from './playback.ts';
import { encodeFrame, type Peer, type Wire } from './venue.ts';

/**
 * The session's frames as they were, in place of markets. The ledger counts trades by `trade_seq` and changes of books by
 * `change_id`; a book that is joined late begins with a snapshot that the recording does not have.
 */
export class DeribitReplay implements DeribitSource {
  readonly servesRaw = true;
  private readonly frames: readonly Frame[];
  private readonly playback: Playback;
  /** Instruments by the families that the session has. */
  private readonly families: ReadonlyMap<string, string>;
  private readonly ledgers = new Map<string, KeyLedger>();
  /** The names under which each reader subscribed, by family. */
  private readonly names = new Map<Peer, Map<string, string>>();

  /** Opens a session in cryptofeed's format. @throws OperatorError saying what is wrong with it */
  static open(exchange: string, file: string, wire: Wire, { speed, dropDiff }: ReplaySpeed): DeribitReplay {
    return new DeribitReplay(exchange, readRecording(file, dropDiff), wire, speed);
  }

  constructor(
    private readonly exchange: string,
    private readonly recording: Recording,
    private readonly wire: Wire,
    speed: number | 'max',
  ) {
    this.frames = recording.frames;
    this.families = new Map(this.frames.map(({ family, instrument }) => [family, instrument]));
    const played = this.frames.map((frame, place) => this.played(frame, place));
    this.playback = new Playback(played, wire, speed, (text, reader) => this.renamed(text, reader));
    this.playback.joined = (reader) => {
      for (const family of reader.families) this.welcome(reader, family);
    };
  }

  get sample(): string {
    return this.frames[0]?.instrument ?? '';
  }

  serves(channel: string): boolean {
    return this.families.has(familyOf(channel));
  }

  subscribe(peer: Peer, channel: string): void {
    const family = familyOf(channel);
    let names = this.names.get(peer);
    if (!names) this.names.set(peer, (names = new Map()));
    const isNew = !names.has(family);
    names.set(family, channel);
    const reader = this.playback.subscribe(peer, family);
    if (isNew && reader?.isFlowing) this.welcome(reader, family);
  }

  unsubscribe(peer: Peer, channel: string): void {
    const names = this.names.get(peer);
    if (names?.get(familyOf(channel)) !== channel) return;
    names.delete(familyOf(channel));
    this.playback.unsubscribe(peer, familyOf(channel));
  }

  leave(peer: Peer): void {
    this.names.delete(peer);
    this.playback.leave(peer);
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

  private played(frame: Frame, place: number): PlayedFrame {
    const { family, kind, instrument, at, text, isKeptBack } = frame;
    const { symbol } = recordedIdentity(this.exchange, instrument, '');
    const isSnapshot = frame.book?.type === 'snapshot';
    const keys = isSnapshot ? [frame.book.change_id] : frame.keys.length > 0 ? frame.keys : [place];
    const ledger = isSnapshot ? this.snapshotsOf(family) : this.ledgerOf(frame);
    return { family, kind, symbol, keys, ledger, at, text, isKeptBack };
  }

  private snapshotsOf(family: string): KeyLedger {
    const { counters } = this.wire.ledger;
    return this.known(`snapshots ${family}`, () => new OnceCounter(() => counters.book_snapshots++));
  }

  private ledgerOf({ family, kind, instrument }: Frame): KeyLedger {
    const { counters } = this.wire.ledger;
    return this.known(family, () =>
      kind === 'trade' || kind === 'orderbook_update'
        ? new OnceLedger(this.wire.ledger.stream(recordedIdentity(this.exchange, instrument, kind)))
        : new OnceCounter(() => counters.reading_frames++),
    );
  }

  private known(name: string, make: () => KeyLedger): KeyLedger {
    let found = this.ledgers.get(name);
    if (!found) this.ledgers.set(name, (found = make()));
    return found;
  }

  /** A frame under the name that its reader gave the channel. */
  private renamed(text: string, { peer }: Reader): string {
    return text.replace(/"channel":"([^"]+)"/, (whole, channel: string) => {
      const name = this.names.get(peer)?.get(familyOf(channel));
      return name === undefined ? whole : `"channel":"${name}"`;
    });
  }

  /** A book that is joined after its recorded snapshot begins with one of the place where the reader is. */
  private welcome({ peer, cursor }: Reader, family: string): void {
    const book = bookAt(this.frames, family, cursor);
    const channel = this.names.get(peer)?.get(family);
    if (book === null || channel === undefined) return;
    peer.push(encodeFrame(notification(channel, snapshotText(this.families.get(family) ?? '', book))));
    this.snapshotsOf(family).record(book.id);
  }

  private instruments(params: Params): string {
    const currency = textOf(params, 'currency');
    const lists = [...this.recording.lists].filter(([name]) => currency === 'any' || currency === name);
    const kind = params.kind ?? 'any';
    return JSON.stringify(lists.flatMap(([, list]) => list.filter((each) => kind === 'any' || kind === each.kind)));
  }

  private orderBook(instrument: string, depth: number): string {
    const family = `book.${instrument}`;
    const none: BookState = { id: 0, timestamp: 0, bids: [], asks: [] };
    const { id, timestamp, bids, asks } = bookAt(this.frames, family, this.playback.past(family)) ?? none;
    const side = (levels: BookState['bids']): string =>
      levels
        .slice(0, depth)
        .map(([price, amount]) => `[${float(price)},${float(amount)}]`)
        .join(',');
    return (
      `{"timestamp":${timestamp},"state":"open","instrument_name":"${instrument}","change_id":${id},` +
      `"bids":[${side(bids)}],"asks":[${side(asks)}]}`
    );
  }

  /** With a clock there is no future; without one each connection has its own present, so the whole session is past. */
  private trades(instrument: string, params: Params): string {
    const range = rangeOf(params);
    const { playback, frames } = this;
    const known = playback.speed === 'max' ? frames : frames.slice(0, playback.past(`trades.${instrument}`));
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
