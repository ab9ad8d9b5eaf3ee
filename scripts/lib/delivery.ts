/**
 * The collector's way to JetStream: each message into the outbox of its stream, from there to the broker, and out of the outbox only
 * when the broker has it.
 */
import { mkdirSync, readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import type { NatsConnection } from 'nats';
import { z } from 'zod';
import { type Config, shownUrl, type WatermarkKind } from './config.ts';
import { isGuarded, tellLeftOut } from './crash_points.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import type { Logger } from './log.ts';
import { Outbox, type OutboxState } from './outbox.ts';
import { type OutgoingMessage, Publisher, type PublisherOptions } from './publisher.ts';
import { steadyNow } from './steady.ts';
import { StreamWatch } from './stream_watch.ts';
import { type StreamName, streamDefinitions, streamNameOf } from './streams.ts';

/** Messages and bytes in flight: the pipelining gain is flat beyond a thousand. */
const MAX_IN_FLIGHT = 1024;
const MAX_IN_FLIGHT_BYTES = 16 * 1024 * 1024;
const ACK_TIMEOUT_MS = 5000;
/** Bytes in memory without an answer, per stream, from which on messages stay in the files only. */
const HIGH_WATERMARK_BYTES = 16 * 1024 * 1024;
/** Bytes in memory that the disk does not take, per stream, from which on nothing more is received. */
const EMERGENCY_BYTES = 32 * 1024 * 1024;
/** Both outboxes together, where the disk has room for it. */
const MOST_OUTBOX_BYTES = 20 * 2 ** 30;
/** On a disk with less room than this the disk itself says when it is full. */
const LEAST_OUTBOX_BYTES = 64 * 2 ** 20;
const DISK_LOOK_MS = 1000;
/** The broker syncs its disk every two minutes; so long, twice over, what it has acknowledged is kept. */
export const KEEP_MS = 240_000;
/** Changes with each boot of the machine. */
const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';
const BOOT = z.object({ boot_id: z.string() });

const KINDS: Record<StreamName, WatermarkKind> = { MARKET_DATA: 'prices', ORDERBOOK_SNAP: 'orderbook' };

export interface DeliveryOptions {
  /** Kept once the broker is reached and has its streams; nothing waits for it. */
  nats: Promise<NatsConnection>;
  config: Config;
  /** Names this run. */
  boot: string;
  startedAt: number;
  onStored: PublisherOptions['onStored'];
  onRefused: PublisherOptions['onRefused'];
  /** The machine's boot id; absent: the kernel's. */
  bootId?: string;
  log: Logger;
}

/** A stream's outbox as /health shows it. */
export interface OutboxHealth extends OutboxState {
  stream: StreamName;
  /** The broker's stream holds so much that is not stored yet that what comes waits here. */
  diverted: boolean;
  /** Share of the broker's stream that is not stored yet; null while that cannot be asked. */
  unread_share: number | null;
  /** Until the outbox is full at the present rate; null while nothing waits in it. */
  minutes_left: number | null;
}

interface Lane {
  outbox: Outbox;
  /** How large its files may become, bytes. */
  bound(): number;
  emergencyRows: number;
}

export class Delivery {
  private constructor(
    readonly publisher: Publisher,
    private readonly lanes: Map<StreamName, Lane>,
    private readonly watch: StreamWatch,
  ) {}

  /** Opens the outboxes: what an earlier run left in them is published first. */
  static async open(options: DeliveryOptions): Promise<Delivery> {
    const { nats, config, boot, startedAt, onRefused, log } = options;
    tellLeftOut(log);
    const lanes = new Map<StreamName, Lane>();
    const publisher = new Publisher({
      mode: config.mode,
      boot,
      startedAt,
      maxInFlight: MAX_IN_FLIGHT,
      maxInFlightBytes: MAX_IN_FLIGHT_BYTES,
      ackTimeoutMs: ACK_TIMEOUT_MS,
      onStored: (message, seconds) => {
        lanes.get(streamNameOf(message.subject))?.outbox.acknowledged(message);
        options.onStored(message, seconds);
      },
      ...(onRefused ? { onRefused } : {}),
      log,
    });
    const broker = shownUrl(config.natsUrl);
    const directory = join(config.dataDir, 'outbox', config.collectorId);
    mkdirSync(directory, { recursive: true });
    const definitions = streamDefinitions(config);
    const budget = new Budget(directory, config.outboxMaxBytes, () =>
      [...lanes.values()].reduce((sum, { outbox }) => sum + outbox.state.bytes, 0),
    );
    const streamBytes = definitions.reduce((sum, { maxBytes }) => sum + maxBytes, 0);
    for (const { name, maxBytes: share } of isGuarded('outbox') ? definitions : []) {
      const bound = () => Math.floor((budget.bytes * share) / streamBytes);
      const { high, emergency } = config.watermarks[KINDS[name]];
      const outbox = await Outbox.open({
        dir: join(directory, name),
        highWatermarkBytes: HIGH_WATERMARK_BYTES,
        highWatermarkRows: high,
        get maxBytes() {
          return bound();
        },
        keepMs: KEEP_MS,
        publish: (message) => publisher.push(message),
        lastStored: () => {
          const mark = publisher.lastStored.get(name);
          return mark === undefined ? null : { ...mark, broker };
        },
        onExhausted: () => watch.lookSoon(),
        now: Date.now,
        log,
      });
      // How much the broker's stream takes is not known yet.
      outbox.allow(0);
      lanes.set(name, { outbox, bound, emergencyRows: emergency });
    }
    const bootId = options.bootId ?? readFileSync(BOOT_ID_FILE, 'utf8').trim();
    // The broker may have been on this machine, and may not have synced its last minutes before it went down.
    if (isNewBoot(directory, bootId, log)) for (const { outbox } of lanes.values()) outbox.republish(0);
    const watch = new StreamWatch({
      definitions,
      earlierStored: (name) => {
        const earlier = lanes.get(name)?.outbox.earlierStored;
        return earlier?.broker === broker ? earlier : null;
      },
      lastStored: (name) => publisher.lastStored.get(name) ?? null,
      onRoom: (name, bytes) => {
        const outbox = lanes.get(name)?.outbox;
        if (!outbox) return;
        const { unacknowledgedBytes, spilledBytes } = outbox.state;
        // What is in flight may not have been counted.
        outbox.allow(bytes - (unacknowledgedBytes - spilledBytes));
      },
      onTailLost: (name) => lanes.get(name)?.outbox.republish(0),
      log,
    });
    void nats.then((connection) => {
      publisher.attach(connection);
      watch.start(connection);
    });
    return new Delivery(publisher, lanes, watch);
  }

  push(message: OutgoingMessage): void {
    const lane = this.lanes.get(streamNameOf(message.subject));
    if (lane) lane.outbox.add(message);
    else this.publisher.push(message);
  }

  /** The payload of the last message of a subject that an earlier run of this collector sent lately; null when none is here. */
  async lastOfEarlierRun(subject: string): Promise<Uint8Array | null> {
    return (await this.lanes.get(streamNameOf(subject))?.outbox.lastOfEarlierRun(subject)) ?? null;
  }

  /** Whether so much waits in memory, or so little room is left on the disk, that nothing more may be received. */
  get mustPause(): boolean {
    return this.isAbove(1);
  }

  /** Half of that. */
  get mayGoOn(): boolean {
    return !this.isAbove(0.5);
  }

  private isAbove(share: number): boolean {
    const { lanes, publisher } = this;
    if (lanes.size === 0) return publisher.waitingBytes > EMERGENCY_BYTES * share;
    return [...lanes.values()].some(
      ({ outbox, emergencyRows }) =>
        outbox.isFull || outbox.waitingBytes > EMERGENCY_BYTES * share || outbox.waitingRows > emergencyRows * share,
    );
  }

  /** Bytes that the broker does not have yet. */
  get waitingBytes(): number {
    if (this.lanes.size === 0) return this.publisher.waitingBytes;
    return [...this.lanes.values()].reduce((sum, { outbox }) => sum + outbox.state.unacknowledgedBytes, 0);
  }

  /** Whether something waits on disk. */
  get isSpilling(): boolean {
    return [...this.lanes.values()].some(({ outbox }) => outbox.state.spilledBytes > 0);
  }

  health(): OutboxHealth[] {
    return [...this.lanes].map(([stream, { outbox, bound }]) => {
      const { state } = outbox;
      const { unreadShare, isTooMuch } = this.watch.state(stream);
      const isWaiting = state.spilledBytes > 0 && state.writeBytesPerSecond > 0;
      const seconds = (bound() - state.unacknowledgedBytes) / state.writeBytesPerSecond;
      return {
        stream,
        ...state,
        writeBytesPerSecond: Math.round(state.writeBytesPerSecond),
        diverted: isTooMuch,
        unread_share: unreadShare === null ? null : Math.round(unreadShare * 10_000) / 10_000,
        minutes_left: isWaiting ? Math.max(Math.round(seconds / 6) / 10, 0) : null,
      };
    });
  }

  /**
   * Waits for the broker while it is there, and for no longer than `limitMs`; what it does not have then is in the outboxes.
   * @returns whether it has everything
   */
  async stop(limitMs: number): Promise<boolean> {
    const all = [...this.lanes.values()].map(({ outbox }) => outbox.drained());
    const drained = Promise.all([...all, this.publisher.drained()]).then(() => true);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((done) => {
      timer = setTimeout(done, this.publisher.isConnected ? limitMs : 0, false);
    });
    const complete = await Promise.race([drained, late]);
    clearTimeout(timer);
    this.watch.stop();
    this.publisher.close();
    await Promise.all([...this.lanes.values()].map(({ outbox }) => outbox.close()));
    return complete;
  }
}

/**
 * How large all outboxes together may become: what the operator says, else half of what the disk has left, what waits there included, and no
 * more than what the design allows. Looked at again and again: a disk that was full at the start is not full for ever.
 */
class Budget {
  private known = 0;
  private lookedAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly directory: string,
    private readonly fixed: number | undefined,
    private readonly used: () => number,
  ) {}

  get bytes(): number {
    if (this.fixed !== undefined) return this.fixed;
    const now = steadyNow();
    if (now - this.lookedAt > DISK_LOOK_MS) {
      this.lookedAt = now;
      const disk = statfsSync(this.directory);
      const half = Math.floor((disk.bavail * disk.bsize + this.used()) / 2);
      this.known = Math.max(Math.min(MOST_OUTBOX_BYTES, half), LEAST_OUTBOX_BYTES);
    }
    return this.known;
  }
}

/** Whether the machine was started since the last run here; remembers this boot. */
function isNewBoot(directory: string, bootId: string, log: Logger): boolean {
  const file = join(directory, 'boot.json');
  let before: string | null = null;
  try {
    const known = BOOT.safeParse(readJson(file));
    before = known.success ? known.data.boot_id : null;
    if (before !== bootId) writeJsonAtomic(file, { boot_id: bootId });
  } catch (error) {
    // Publishing again costs time; not doing so may cost rows.
    log.warn({ event: 'boot_unknown', file, err: error });
    return true;
  }
  return before !== null && before !== bootId;
}
