/**
 * The frames of a recorded session on their way to the readers: recorded bytes in the recorded order, each reader from the
 * beginning as fast as it reads, or all of them by one clock.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { OperatorError } from '../cli.ts';
import type { DataKind, Verdict } from './faults.ts';
import type { KeyLedger } from './ledger.ts';
import { encodeFrame, type Peer, type Wire } from './venue.ts';

/** Frames begin to flow this long after a connection's last subscription, so that several requests take part from the start. */
const SETTLE_MS = 50;
/**
 * By one clock the session begins when each of its kinds has a reader, as a collector opens several sockets; and after this time all the same, as
 * not everybody asks for all kinds.
 */
const GATHER_MS = 3000;
/** Frames per write: enough to keep the line busy, little enough to let others in between. */
const FRAMES_PER_WRITE = 200;
const GZIP_MAGIC = 0x1f8b;

export interface ReplaySpeed {
  readonly speed: number | 'max';
  /** Place of a depth update (from 1) that is not written; 0 = none. */
  readonly dropDiff: number;
}

export interface PlayedFrame {
  /** What a subscription must name to get it. */
  readonly family: string;
  /** Null: no fault means it. */
  readonly kind: DataKind | null;
  readonly symbol: string;
  readonly keys: readonly number[];
  readonly ledger: KeyLedger | null;
  /** Receive time in ms. */
  readonly at: number;
  readonly text: string;
  readonly isKeptBack: boolean;
}

/** One connection's way through the session. */
export interface Reader {
  readonly peer: Peer;
  readonly families: ReadonlySet<string>;
  /** How many frames are behind it. */
  readonly cursor: number;
  readonly isFlowing: boolean;
}

interface Way extends Reader {
  readonly families: Set<string>;
  subscribedAt: number;
  cursor: number;
  isFlowing: boolean;
  isPumping: boolean;
  held: { family: string; frame: string } | null;
}

/** The lines of a session, gzip or plain. One byte is one character, so that what goes out is byte for byte what came in. */
export function sessionText(file: string): string {
  try {
    const bytes = readFileSync(file);
    const isPacked = bytes.length > 1 && bytes.readUInt16BE(0) === GZIP_MAGIC;
    return (isPacked ? gunzipSync(bytes) : bytes).toString('latin1');
  } catch (error) {
    throw new OperatorError(`--replay: cannot read ${file}: ${(error as Error).message}`);
  }
}

export class Playback {
  private readonly ways = new Map<Peer, Way>();
  private readonly families: ReadonlySet<string>;
  /** With a shared clock: when it started, and how far it is. */
  private clockStart: number | null = null;
  private firstReaderAt: number | null = null;
  private position = 0;
  private pausedAt: number | null = null;
  private hasFinished = false;
  /** Told of a reader that joins the clock's session where it is, before its first frame. */
  joined: (reader: Reader) => void = () => undefined;

  /** @param unwrap how a frame looks to this reader, which takes data without its wrapping */
  constructor(
    private readonly frames: readonly PlayedFrame[],
    private readonly wire: Wire,
    readonly speed: number | 'max',
    private readonly unwrap: (text: string, reader: Reader) => string = (text) => text,
  ) {
    this.families = new Set(frames.map(({ family }) => family));
  }

  get readers(): Iterable<Reader> {
    return this.ways.values();
  }

  /** How many frames are past for whoever asks: by the clock, or those of the reader of `family` that is furthest. */
  past(family: string): number {
    if (this.speed !== 'max') return this.position;
    const followers = [...this.ways.values()].filter(({ families }) => families.has(family));
    return Math.max(0, ...followers.map(({ cursor }) => cursor));
  }

  /** Adds a family to a reader's. @returns the reader; undefined when the session has nothing of the kind */
  subscribe(peer: Peer, family: string): Reader | undefined {
    if (!this.families.has(family)) return undefined;
    const subscribedAt = this.wire.clock();
    let way = this.ways.get(peer);
    if (!way) {
      way = { peer, families: new Set(), subscribedAt, cursor: 0, isFlowing: false, isPumping: false, held: null };
      this.ways.set(peer, way);
    }
    way.families.add(family);
    way.subscribedAt = subscribedAt;
    this.pump(way);
    return way;
  }

  unsubscribe(peer: Peer, family: string): void {
    this.ways.get(peer)?.families.delete(family);
  }

  leave(peer: Peer): void {
    this.ways.delete(peer);
  }

  advance(now: number): void {
    if (this.pausedAt !== null) return;
    for (const way of this.ways.values()) {
      if (way.isFlowing || now - way.subscribedAt < SETTLE_MS) continue;
      way.isFlowing = true;
      if (this.speed === 'max') {
        this.pump(way);
      } else {
        way.cursor = this.position;
        this.joined(way);
      }
    }
    if (this.speed !== 'max') this.followClock(now, this.speed);
    this.hasFinished ||= this.areReadersDone();
  }

  stop(): void {
    this.pausedAt ??= this.wire.clock();
  }

  start(now: number): void {
    if (this.pausedAt === null) return;
    if (this.clockStart !== null) this.clockStart += now - this.pausedAt;
    this.pausedAt = null;
    for (const way of this.ways.values()) this.pump(way);
  }

  done(): boolean {
    return this.ways.size === 0 ? this.hasFinished : this.areReadersDone();
  }

  private areReadersDone(): boolean {
    const { length } = this.frames;
    return (
      this.ways.size > 0 && [...this.ways.values()].every(({ peer, cursor }) => cursor === length && peer.unread === 0)
    );
  }

  /** Moves the shared clock, and every reader with it. */
  private followClock(now: number, speed: number): void {
    const { frames } = this;
    if (this.clockStart === null) {
      const readers = [...this.ways.values()].filter(({ isFlowing }) => isFlowing);
      if (readers.length === 0) return;
      this.firstReaderAt ??= now;
      const isWhole = [...this.families].every((family) => readers.some(({ families }) => families.has(family)));
      if (!isWhole && now - this.firstReaderAt < GATHER_MS) return;
      this.clockStart = now;
    }
    const until = (frames[0]?.at ?? 0) + (now - this.clockStart) * speed;
    while (this.position < frames.length && (frames[this.position] as PlayedFrame).at <= until) this.position++;
    for (const way of this.ways.values()) {
      if (!way.isFlowing) continue;
      while (way.cursor < this.position) this.step(way);
      way.peer.flush();
    }
  }

  /** Writes as much as the reader takes, in pieces, then waits for it. */
  private pump(way: Way): void {
    if (this.speed !== 'max' || !way.isFlowing || way.isPumping) return;
    way.isPumping = true;
    const more = (): void => {
      const { length } = this.frames;
      const mayGoOn = this.pausedAt === null && way.peer.open && way.families.size > 0;
      if (!mayGoOn || way.cursor === length) {
        way.isPumping = false;
        return;
      }
      const end = Math.min(length, way.cursor + FRAMES_PER_WRITE);
      while (way.cursor < end) this.step(way);
      way.peer.flush();
      // Even a reader that keeps up leaves room for the others between two pieces.
      if (way.peer.full) way.peer.onceDrained(() => setImmediate(more));
      else setImmediate(more);
    };
    more();
  }

  /** Gives the reader its next frame, if it asked for that kind and no fault takes it. */
  private step(way: Way): void {
    const frame = this.frames[way.cursor++] as PlayedFrame;
    if (way.families.has(frame.family)) this.write(way, frame);
    const isEnd = way.cursor === this.frames.length;
    if (isEnd && way.held) this.release(way);
  }

  private write(way: Way, frame: PlayedFrame): void {
    const verdict = this.verdict(way, frame);
    if (verdict === 'withhold') {
      for (const key of frame.keys) frame.ledger?.withhold(key);
      return;
    }
    const encoded = encodeFrame(way.peer.combined ? frame.text : this.unwrap(frame.text, way));
    for (const key of frame.keys) frame.ledger?.record(key);
    if (verdict === 'hold') {
      way.held = { family: frame.family, frame: encoded };
      return;
    }
    way.peer.push(encoded);
    if (verdict === 'twice') {
      way.peer.push(encoded);
      this.wire.ledger.counters.repeated++;
    }
    if (way.held?.family === frame.family) {
      this.wire.ledger.counters.reordered++;
      this.release(way);
    }
  }

  private verdict(way: Way, frame: PlayedFrame): Verdict {
    const { faults } = this.wire;
    if (frame.isKeptBack) return 'withhold';
    if (frame.kind === null || faults.idle || way.held !== null) return 'send';
    return faults.verdict(frame.symbol, frame.kind);
  }

  private release(way: Way): void {
    if (way.held) way.peer.push(way.held.frame);
    way.held = null;
  }
}
