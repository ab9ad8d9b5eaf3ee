/**
 * Alarms for what is open and yet does not speak: a class of channels on a socket of which nothing comes any more, and streams that were
 * granted and have given nothing on this connection. One busy channel hides a dead one from the socket's own alarm.
 */
import type { Coverage, StreamState } from './coverage.ts';
import type { Channel } from './exchange.ts';
import type { DataType } from './rows.ts';

/** A class whose last row on a socket is older than this is silent, ms. Readings make a row a minute; liquidations come when they come. */
const CLASS_LIMITS: Partial<Record<DataType, number>> = {
  trade: 60_000,
  orderbook_update: 60_000,
  funding_rate: 150_000,
  open_interest: 150_000,
  volatility_index: 150_000,
};
/** A stream that has given nothing for this long after its socket opened is told of, ms. */
const FIRST_ROW_LIMIT_MS = 60_000;
/** A class that stays silent is told again, and its socket renewed again, after this time. */
const REPEAT_MS = 600_000;
/** Streams that stay without a first row may be of contracts that nobody trades: each time they are told after twice the time, up to this. */
const LAST_REPEAT_MS = 24 * 3_600_000;
const NEVER = Number.NEGATIVE_INFINITY;

export interface SilenceAlarms {
  /** Nothing of this class came for `seconds`, on a socket that is open. */
  classSilent(type: DataType, seconds: number): void;
  /** Granted, and no row since this connection opened. */
  neverDelivered(streams: StreamState[]): void;
}

/** The alarms of one socket's channels. */
export class SilenceWatch {
  private readonly told = new Map<DataType, number>();
  private nextFirstAlarmAt = NEVER;
  private repeatMs = REPEAT_MS;

  constructor(
    private readonly channels: readonly Channel[],
    private readonly coverage: Coverage,
    private readonly alarms: SilenceAlarms,
  ) {}

  /** @param openedAt when the present connection opened; both are times of the steady clock, as the coverage's, ms */
  check(now: number, openedAt: number): void {
    const newest = new Map<DataType, number>();
    const silent: StreamState[] = [];
    for (const { types, instrument } of this.channels) {
      for (const type of types) {
        const stream = this.coverage.find(type, instrument.instrument);
        if (!stream) continue;
        newest.set(type, Math.max(newest.get(type) ?? NEVER, stream.lastRowAt ?? NEVER));
        if (type !== 'liquidation' && (stream.lastRowAt ?? NEVER) < openedAt) silent.push(stream);
      }
    }
    for (const [type, at] of newest) this.checkClass(type, now, at, openedAt);
    if (now - openedAt >= FIRST_ROW_LIMIT_MS) this.checkFirst(silent, now);
  }

  private checkFirst(silent: StreamState[], now: number): void {
    if (silent.length === 0) this.repeatMs = REPEAT_MS;
    if (silent.length === 0 || now < this.nextFirstAlarmAt) return;
    this.nextFirstAlarmAt = now + this.repeatMs;
    this.repeatMs = Math.min(this.repeatMs * 2, LAST_REPEAT_MS);
    this.alarms.neverDelivered(silent);
  }

  private checkClass(type: DataType, now: number, newestAt: number, openedAt: number): void {
    const limit = CLASS_LIMITS[type];
    if (limit === undefined) return;
    // A new connection is given its time, and says nothing: only a row ends a silence.
    if (now - newestAt <= limit) this.told.delete(type);
    const since = Math.max(newestAt, openedAt);
    if (now - since <= limit || now - (this.told.get(type) ?? NEVER) < REPEAT_MS) return;
    this.told.set(type, now);
    this.alarms.classSilent(type, Math.round((now - since) / 1000));
  }
}
