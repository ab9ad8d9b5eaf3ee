/**
 * A recorded session as OKX's source of data: the recorded bytes in the recorded order. What was recorded of `trades` is
 * served under the name of `trades-all` too, which the venue had not yet: each of these frames is one fill.
 */
import type { OkxProduct } from './okx_instruments.ts';
import type { Route } from './okx_pair.ts';
import { type OkxFrame, type OkxRecording, readOkxRecording, recordedBook, recordedIdentity } from './okx_recording.ts';
import { cursorOf, emptyParameter, limitOf, NO_INSTRUMENT, okxOk, pageOf, wrongParameter } from './okx_rest.ts';
import type { OkxSource } from './okx_seeded.ts';
import { OnceLedger } from './once_ledger.ts';
import type { ReplayOptions } from './options.ts';
import { Playback, type PlayedFrame, type Reader } from './playback.ts';
import { encodeFrame, type Peer, type RestAnswer, type RestRequest, type Wire } from './venue.ts';

/** What the venue has on its public path, of one instrument each. */
const PUBLIC_CHANNELS = ['books', 'bbo-tbt', 'trades', 'tickers', 'funding-rate', 'open-interest'];
/** REST of what no session has: it answers with no rows. */
const NOT_RECORDED = /^\/api\/v5\/(rubik\/stat\/contracts|public\/(funding-rate|open-interest))/;
const OF_INSTRUMENT = ['/api/v5/market/books', '/api/v5/market/trades', '/api/v5/market/history-trades'];

export class OkxReplay implements OkxSource {
  private readonly instruments: ReadonlySet<string>;
  private readonly frames: readonly OkxFrame[];
  /** Recorded frames before each played one: fills are played under two names. */
  private readonly places: readonly number[];
  private readonly playback: Playback;

  /** Opens a session file. @throws OperatorError saying what is wrong with it */
  static open(product: OkxProduct, exchange: string, wire: Wire, { file, speed, dropDiff }: ReplayOptions): OkxReplay {
    return new OkxReplay(readOkxRecording(product, file, dropDiff ?? 0), exchange, wire, speed ?? 'max');
  }

  constructor(
    private readonly recording: OkxRecording,
    exchange: string,
    private readonly wire: Wire,
    speed: number | 'max',
  ) {
    this.frames = recording.frames;
    this.instruments = new Set(this.frames.map(({ instrument }) => instrument));
    const played = playedFrames(this.frames, exchange, wire);
    this.places = played.map(({ place }) => place);
    this.playback = new Playback(played, wire, speed);
    this.playback.joined = (reader) => {
      for (const name of reader.families) this.base(reader, name);
    };
  }

  /** A channel of the venue that was not recorded is granted all the same, and stays silent. */
  serves(route: Route, name: string): boolean {
    const [channel = '', subject = ''] = name.split(':');
    if (route === 'business') return channel === 'trades-all' && this.instruments.has(subject);
    return channel === 'liquidation-orders' || (PUBLIC_CHANNELS.includes(channel) && this.instruments.has(subject));
  }

  subscribe(peer: Peer, name: string): void {
    const reader = this.playback.subscribe(peer, name);
    if (reader?.isFlowing) this.base(reader, name);
  }

  unsubscribe(peer: Peer, name: string): void {
    this.playback.unsubscribe(peer, name);
  }

  leave(peer: Peer): void {
    this.playback.leave(peer);
  }

  rest({ path, query }: RestRequest): RestAnswer | undefined {
    if (path === '/api/v5/public/instruments') return this.list(query);
    if (NOT_RECORDED.test(path)) return okxOk([]);
    if (!OF_INSTRUMENT.includes(path)) return undefined;
    const id = query.get('instId');
    if (!id) return emptyParameter('instId');
    if (!this.instruments.has(id)) return NO_INSTRUMENT;
    if (path !== '/api/v5/market/books') {
      // Without a clock each connection has its own present, so the whole session is past.
      const isTimed = this.playback.speed !== 'max';
      return this.fills(id, isTimed ? this.placeOf(this.playback.past(`trades:${id}`)) : this.frames.length, query);
    }
    this.wire.ledger.counters.snapshots++;
    const book = recordedBook(this.frames, id, this.placeOf(this.playback.past(`books:${id}`)));
    return okxOk(book === undefined ? [] : [book]);
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

  /** Recorded frames that are past when this many were played. */
  private placeOf(played: number): number {
    return this.places[played] ?? this.frames.length;
  }

  /** A reader that comes to a book in the middle gets a snapshot of it as it stands there; at the beginning it was recorded. */
  private base({ peer, cursor }: Reader, name: string): void {
    const [channel, instrument = ''] = name.split(':');
    if (channel !== 'books') return;
    const book = recordedBook(this.frames, instrument, this.placeOf(cursor));
    if (book === undefined) return;
    this.wire.ledger.counters.book_snapshots++;
    const arg = `{"arg":{"channel":"books","instId":"${instrument}"}`;
    peer.push(encodeFrame(`${arg},"action":"snapshot","data":[${book}]}`));
  }

  /** The recorded list of a type, byte for byte; cut down to one line where one instrument is asked for. */
  private list(query: URLSearchParams): RestAnswer {
    const type = query.get('instType');
    if (!type) return emptyParameter('instType');
    const family = query.get('uly') ?? query.get('instFamily');
    const found = this.recording.lists.find(({ path }) => {
      const asked = new URL(path, 'http://localhost').searchParams;
      return asked.get('instType') === type && (family === null || (asked.get('uly') ?? family) === family);
    });
    const body = found?.body ?? okxOk([]).body;
    const id = query.get('instId');
    if (id === null) return { status: 200, body };
    const { data } = JSON.parse(body) as { data: { instId: string }[] };
    const lines = data.filter(({ instId }) => instId === id);
    return lines.length === 0 ? NO_INSTRUMENT : okxOk(lines.map((line) => JSON.stringify(line)));
  }

  private fills(instrument: string, past: number, query: URLSearchParams): RestAnswer {
    const [after, before] = [cursorOf(query, 'after'), cursorOf(query, 'before')];
    if (after === null) return wrongParameter('after');
    if (before === null) return wrongParameter('before');
    const known = this.frames.slice(0, past).filter((frame) => frame.instrument === instrument);
    const rows = known.flatMap(({ fills, keys }) => fills.map((text, place) => ({ text, id: keys[place] ?? 0 })));
    const page = pageOf(rows.reverse(), ({ id }) => id, { after, before, limit: limitOf(query, 100, 500) });
    return okxOk(page.map(({ text }) => text));
  }
}

/** The frames under each name that they are asked for by; a fill counts once, whichever of its names it came by. */
function playedFrames(frames: readonly OkxFrame[], exchange: string, wire: Wire): (PlayedFrame & { place: number })[] {
  const ledgers = new Map<string, OnceLedger>();
  const ledgerOf = (instrument: string, kind: string): OnceLedger => {
    const name = `${kind} ${instrument}`;
    let found = ledgers.get(name);
    if (!found)
      ledgers.set(name, (found = new OnceLedger(wire.ledger.stream(recordedIdentity(exchange, instrument, kind)))));
    return found;
  };
  return frames.flatMap(({ channel, instrument, kind, keys, at, text, isKeptBack }, place) => {
    const { symbol } = recordedIdentity(exchange, instrument, '');
    const ledger = kind === 'trade' || kind === 'orderbook_update' ? ledgerOf(instrument, kind) : null;
    const frame = { family: `${channel}:${instrument}`, kind, symbol, keys, ledger, at, text, isKeptBack, place };
    if (channel !== 'trades') return [frame];
    const renamed = text.replace('"channel":"trades"', '"channel":"trades-all"');
    return [frame, { ...frame, family: `trades-all:${instrument}`, text: renamed }];
  });
}
