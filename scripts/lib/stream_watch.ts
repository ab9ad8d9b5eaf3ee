/**
 * Watches the broker's streams for the collector: how much of each the store has not read, so that nothing unread is ever discarded; and
 * whether a broker that came back still has what it had acknowledged.
 */
import { type ConsumerInfo, Events, type JetStreamManager, type NatsConnection, nanos, type StreamInfo } from 'nats';
import { ackFloor } from './durables.ts';
import { messageId } from './jetstream.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import { confirmed } from './quorum.ts';
import { durableName, type StreamDefinition, type StreamName } from './streams.ts';

const WATCH_MS = 5000;
/** Of a stream's bytes: above the first nothing more is published to it, below the second again. */
const TOO_MUCH_SHARE = 0.7;
const ENOUGH_SHARE = 0.4;
/** Of a stream's greatest age: an unread message that is older makes the stream keep its messages longer. */
const OLD_SHARE = 0.5;
/** Once nothing unread is older than this share of the usual age, that is in force again. */
const YOUNG_SHARE = 0.25;
const MOST_MARKS = 20;
/** So many collectors may publish to a stream at the same time, each with its share of the room. */
const COLLECTORS = 2;
/** While a stream takes nothing: what waits goes on soon after the store has made room. */
const HELD_WATCH_MS = 500;
/** Between two looks, however often they are asked for. */
const LEAST_WATCH_MS = 100;
const NANOS_PER_MS = 1_000_000;

/** A message that the broker has acknowledged. */
export interface StoredMark {
  seq: number;
  /** Its Nats-Msg-Id. */
  id: string;
}

export interface StreamWatchOptions {
  definitions: StreamDefinition[];
  /** The newest message that the broker had acknowledged to an earlier run; it is looked for first. */
  earlierStored(name: StreamName): StoredMark | null;
  /** The newest message of ours that the broker has acknowledged. */
  lastStored(name: StreamName): StoredMark | null;
  /** So many bytes may be published until the next look: none while too much is unread, and while the broker is away. */
  onRoom(name: StreamName, bytes: number): void;
  /** What the broker had acknowledged is not there any more. */
  onTailLost(name: StreamName): void;
  watchMs?: number;
  log: Logger;
}

interface Watched {
  unreadShare: number | null;
  isTooMuch: boolean;
  /** What is to be looked for: the last messages before each time that the broker was away. */
  marks: StoredMark[];
}

export class StreamWatch {
  private readonly streams = new Map<StreamName, Watched>();
  private readonly stopping = new AbortController();
  private wake: () => void = () => undefined;
  /** A look was asked for since the last one began. */
  private isAwaited = false;

  constructor(private readonly options: StreamWatchOptions) {
    for (const { name } of options.definitions) {
      const earlier = options.earlierStored(name);
      this.streams.set(name, { unreadShare: null, isTooMuch: false, marks: earlier === null ? [] : [earlier] });
    }
  }

  /** Watches from now on. */
  start(nats: NatsConnection): void {
    void this.followConnection(nats);
    void this.run(nats);
  }

  state(name: StreamName): { unreadShare: number | null; isTooMuch: boolean } {
    return this.streams.get(name)!;
  }

  /** Looks as soon as may be. */
  lookSoon(): void {
    this.isAwaited = true;
    this.wake();
  }

  stop(): void {
    this.stopping.abort();
  }

  private async run(nats: NatsConnection): Promise<void> {
    const { definitions, log, watchMs = WATCH_MS } = this.options;
    let manager: JetStreamManager | null = null;
    while (!this.stopping.signal.aborted) {
      this.isAwaited = false;
      for (const definition of definitions) {
        try {
          manager ??= await nats.jetstreamManager();
          await this.look(manager, definition);
        } catch (error) {
          if (this.stopping.signal.aborted) return;
          // Without an answer nothing is known; the outbox takes what the broker does not.
          this.streams.get(definition.name)!.unreadShare = null;
          log.warn({ event: 'stream_unwatched', stream: definition.name, err: error });
        }
      }
      const { signal } = this.stopping;
      const woken = new Promise<void>((done) => {
        this.wake = done;
      });
      await pause(Math.min(LEAST_WATCH_MS, watchMs), signal).catch(() => undefined);
      if (this.isAwaited) continue;
      const rest = new AbortController();
      const isHeld = [...this.streams.values()].some(({ isTooMuch }) => isTooMuch);
      const until = isHeld ? Math.min(watchMs, HELD_WATCH_MS) : watchMs;
      const wait = pause(Math.max(until - LEAST_WATCH_MS, 0), AbortSignal.any([signal, rest.signal]));
      await Promise.race([wait.catch(() => undefined), woken]);
      rest.abort();
    }
  }

  /** A broker that went away may come back without its tail: what it had last is looked for then. */
  private async followConnection(nats: NatsConnection): Promise<void> {
    for await (const status of nats.status()) {
      if (status.type === Events.Reconnect) this.lookSoon();
      if (status.type !== Events.Disconnect) continue;
      for (const [name, { marks }] of this.streams) {
        // Others may fill it meanwhile, and what it had taken may be gone.
        this.options.onRoom(name, 0);
        const last = this.options.lastStored(name);
        if (last === null || marks.at(-1)?.seq === last.seq) continue;
        marks.push(last);
        // A broker that comes and goes for long without an answer: the newest tell most.
        if (marks.length > MOST_MARKS) marks.shift();
      }
    }
  }

  private async look(manager: JetStreamManager, definition: StreamDefinition): Promise<void> {
    const { onTailLost, log } = this.options;
    const { name } = definition;
    const watched = this.streams.get(name)!;
    const info = await manager.streams.info(name);
    for (let mark = watched.marks[0]; mark; mark = watched.marks[0]) {
      if (!(await hasMessage(manager, name, mark))) {
        log.error({ event: 'broker_lost_tail', stream: name, seq: mark.seq, last_seq: info.state.last_seq });
        watched.marks.length = 0;
        onTailLost(name);
      } else watched.marks.shift();
    }
    const durables: ConsumerInfo[] = [];
    for await (const each of manager.consumers.list(name)) durables.push(each);
    const floor = unreadFloor(info, durables, definition);
    this.judgeShare(definition, watched, unreadShare(info, floor, definition));
    await this.judgeAge(manager, definition, info, floor);
  }

  private judgeShare({ name, maxBytes }: StreamDefinition, watched: Watched, share: number): void {
    const { onRoom, log } = this.options;
    watched.unreadShare = share;
    const isTooMuch = share > (watched.isTooMuch ? ENOUGH_SHARE : TOO_MUCH_SHARE);
    onRoom(name, isTooMuch ? 0 : Math.floor(((TOO_MUCH_SHARE - share) * maxBytes) / COLLECTORS));
    if (isTooMuch === watched.isTooMuch) return;
    watched.isTooMuch = isTooMuch;
    if (isTooMuch) log.error({ event: 'stream_diverted', stream: name, unread_share: share });
    else log.warn({ event: 'stream_resumed', stream: name, unread_share: share });
  }

  private async judgeAge(
    manager: JetStreamManager,
    { name, maxAgeMs }: StreamDefinition,
    { config, state }: StreamInfo,
    floor: number,
  ): Promise<void> {
    const { log } = this.options;
    const liveMs = config.max_age / NANOS_PER_MS;
    const age = await this.unreadAge(manager, name, state, floor);
    const isOld = age > liveMs * OLD_SHARE;
    if (!isOld && !(liveMs > maxAgeMs && age < maxAgeMs * YOUNG_SHARE)) return;
    const wantedMs = isOld ? liveMs * 2 : maxAgeMs;
    await manager.streams.update(name, { ...config, max_age: nanos(wantedMs) });
    const figures = { stream: name, oldest_unread_ms: age, max_age_ms: wantedMs };
    if (isOld) log.error({ event: 'stream_age_raised', ...figures });
    else log.warn({ event: 'stream_age_restored', ...figures });
  }

  /** Age of the oldest message that the store has not read, ms; 0 when it has read all. */
  private async unreadAge(
    manager: JetStreamManager,
    name: StreamName,
    state: StreamInfo['state'],
    floor: number,
  ): Promise<number> {
    if (state.messages === 0 || floor >= state.last_seq) return 0;
    if (floor < state.first_seq) return Date.now() - Date.parse(state.first_ts as unknown as string);
    const { time } = await manager.streams.getMessage(name, { seq: floor + 1 });
    return Date.now() - time.getTime();
  }
}

/** Up to here the store has read everything of a stream. */
export function unreadFloor({ state }: StreamInfo, durables: ConsumerInfo[], { types }: StreamDefinition): number {
  const floors = types.map((type) => {
    const durable = durables.find(({ name }) => name === durableName(type));
    // A store that was never there has read nothing.
    if (durable === undefined) return 0;
    // A type of which nothing waits holds nothing back, however long ago its last message was.
    return durable.num_pending + durable.num_ack_pending === 0 ? state.last_seq : ackFloor(durable);
  });
  return Math.min(...floors);
}

/** The share of a stream's bound that is taken by what is above `floor`. */
export function unreadShare({ state }: StreamInfo, floor: number, { maxBytes }: StreamDefinition): number {
  if (state.messages === 0) return 0;
  const unread = Math.max(state.last_seq - Math.max(floor, state.first_seq - 1), 0);
  const all = state.last_seq - state.first_seq + 1;
  return (state.bytes * unread) / all / maxBytes;
}

/** Whether a message is still there; one that is older than everything in the stream was let go by its limits. */
async function hasMessage(manager: JetStreamManager, stream: StreamName, { seq, id }: StoredMark): Promise<boolean> {
  const gone = await confirmed(manager, stream, async ({ state }) => {
    if (seq < state.first_seq && state.last_seq >= seq) return null;
    return (await messageId(manager, stream, seq)) === id ? null : 'another message is there, or none';
  });
  return gone === null;
}
