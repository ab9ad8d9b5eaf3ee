/**
 * What one process at a time may do, on whatever machine it runs: a lease, kept in the broker, where a record is replaced only by who knows the one
 * before. The lock of `lock.ts` keeps two processes of one data directory apart; this keeps machines apart.
 *
 * Its holder writes it again and again, and holds it for ten seconds from the moment when it began a write that was confirmed. Who takes it from
 * another place waits as long after its own first write before it does anything: whatever the one before was told last, it holds nothing any more
 * by then. Who sees that the holder goes on writing stands by.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { hostname } from 'node:os';
import type { KV, NatsConnection } from 'nats';
import { z } from 'zod';
import { OperatorError } from './cli.ts';
import { apiErrorCode } from './jetstream.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import type { Check } from './service.ts';
import { steadyNow } from './steady.ts';
import { signOfLife } from './vital_signs.ts';

const BUCKET = 'marketprism_leases';
/** Of all leases together; a record is a few kilobytes at most. */
const BUCKET_BYTES = 1024 * 1024;
const WRONG_LAST_SEQUENCE = 10071;

export interface LeaseTimes {
  /** How long a confirmed write lasts. */
  holdMs: number;
  /** From one write to the next, and to the next try after one that failed. */
  renewMs: number;
  againMs: number;
  /** A holder that writes nothing for so long, while the broker answers, is away: a broker that was started again is waited for by who held it. */
  awayMs: number;
  /** Who stands by looks this often. */
  lookMs: number;
}
const TIMES: LeaseTimes = { holdMs: 10_000, renewMs: 2500, againMs: 500, awayMs: 20_000, lookMs: 1000 };
/** A write or a read without an answer for so long has failed. */
const ANSWER_WITHIN_MS = 2000;
const HELD_LOOK_MS = 100;

const recordShape = z.object({
  /** One process. */
  boot: z.string(),
  /** Where it holds its lock: two of one place are never there at once. */
  place: z.string(),
  /** For people. */
  holder: z.string(),
  /** Rises by one from holder to holder. */
  term: z.number().int().positive(),
  released: z.boolean(),
  /** What the next holder may want to know. */
  state: z.unknown(),
});
type LeaseRecord = z.infer<typeof recordShape>;

interface Entry {
  record: LeaseRecord;
  revision: number;
}

/** What a holder left to the next one. */
export interface Before {
  state: unknown;
  /** It was somewhere else. */
  isOthers: boolean;
}

/** The broker has not confirmed it in time: nothing may be done until it has. */
export class LeaseLapsed extends Error {}

/** Another process took it: what is under way here may have been done there. */
export class LeaseLost extends OperatorError {}

/** The clocks of a lease, ms: one that only goes forward, and one that goes on while the machine sleeps. */
export interface LeaseClock {
  steady(): number;
  wall(): number;
}
const CLOCK: LeaseClock = { steady: steadyNow, wall: Date.now };

export interface LeaseOptions {
  /** Letters, digits, `_`, `-`, `/`, `=` and `.`. */
  name: string;
  place: string;
  /** Tells what the next holder may want to know, at each write; undefined: what the holder before left. */
  state(): unknown;
  /** It is not held any more: what is under way must not come to pass. */
  onLapse(): void;
  log: Logger;
  clock?: LeaseClock;
  times?: LeaseTimes;
}

/** The leases' place in the broker, made where it is not there. @param replicas servers of a cluster that keep it; absent: as many as it has, or one */
export async function openLeases(connection: NatsConnection, replicas?: number): Promise<KV> {
  const jetstream = connection.jetstream({ timeout: ANSWER_WITHIN_MS });
  const kept = replicas === undefined ? {} : { replicas };
  const bucket = await jetstream.views.kv(BUCKET, { history: 1, max_bytes: BUCKET_BYTES, ...kept });
  const { streamInfo } = await bucket.status();
  if (replicas !== undefined && streamInfo.config.num_replicas !== replicas) {
    const manager = await connection.jetstreamManager({ checkAPI: false, timeout: ANSWER_WITHIN_MS });
    await manager.streams.update(streamInfo.config.name, { ...streamInfo.config, num_replicas: replicas });
  }
  return bucket;
}

/** What /health says of a service's leases. One that stands by is as it should be. */
export function leaseCheck(leases: readonly Lease[]): Check {
  const details = Object.fromEntries(leases.map((lease) => [lease.name, lease.word]));
  const lapsed = leases.filter(({ word }) => word === 'lapsed').map(({ name }) => name);
  const fault = `the broker has not confirmed the lease ${lapsed.join(', ')}: nothing is done`;
  return lapsed.length === 0
    ? { status: 'healthy', error_message: null, details }
    : { status: 'unhealthy', error_message: fault, details };
}

/** This machine as it runs now, its network namespace (in which the locks are) and the data directory: who holds the lock there is alone in it. */
export function placeOf(dataDir: string): string {
  const parts = [
    readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    readlinkSync('/proc/self/ns/net'),
    realpathSync(dataDir),
  ];
  return createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 16);
}

export class Lease {
  readonly name: string;
  /** Who holds it instead, while this one stands by; null: it does not. */
  private standingBy: string | null = null;
  private readonly boot = randomBytes(8).toString('hex');
  private readonly clock: LeaseClock;
  private readonly times: LeaseTimes;
  private term = 0;
  private revision = 0;
  private bucket: KV | null = null;
  /** What the holder before left, until there is something of our own to leave. */
  private carried: unknown = null;
  private keeping: Promise<void> | null = null;
  private isFaultTold = false;
  /** When the last write that was confirmed began. */
  private confirmed: { steady: number; wall: number } | null = null;
  /** Of the steady clock: before, nothing is done under it, as another may still. */
  private notBefore = 0;

  constructor(
    private readonly open: () => Promise<KV>,
    private readonly options: LeaseOptions,
  ) {
    this.name = options.name;
    this.clock = options.clock ?? CLOCK;
    this.times = options.times ?? TIMES;
  }

  /** Whether it may be relied on now. By both clocks: one stands still while the machine sleeps, the other may be set. */
  isHeld(): boolean {
    const now = this.clock.steady();
    return this.sinceConfirmed() < this.times.holdMs && now >= this.notBefore;
  }

  get isStandingBy(): boolean {
    return this.standingBy !== null;
  }

  /** For people: `held`, `lapsed`, `not taken`, `taking over`, or whom it stands by for. */
  get word(): string {
    if (this.standingBy !== null) return `standing by for ${this.standingBy}`;
    if (this.confirmed === null) return 'not taken';
    if (this.sinceConfirmed() >= this.times.holdMs) return 'lapsed';
    return this.isHeld() ? 'held' : 'taking over';
  }

  /** @throws LeaseLapsed when it may not be relied on; to be called as the last thing before what only its holder does */
  check(): void {
    if (!this.isHeld()) throw new LeaseLapsed(`the broker has not confirmed the lease ${this.name}`);
  }

  /** Waits until it may be relied on, however long that takes. @param onWait told again and again meanwhile @throws the reason of `stop` */
  async whenHeld(stop: AbortSignal, onWait: () => void = () => undefined): Promise<void> {
    while (!this.isHeld()) {
      onWait();
      await pause(HELD_LOOK_MS, stop);
    }
  }

  /**
   * Takes it, and waits as long as another holds it.
   * @param patient false: who finds it held by another fails at once
   * @param turn before it comes, only who holds it is looked at: of several, leases are taken in an order that is the same everywhere
   * @returns what the holder before left; null: there was none
   * @throws OperatorError saying who holds it; the reason of `stop`
   */
  async take(stop: AbortSignal, patient = true, turn: Promise<unknown> = Promise.resolve()): Promise<Before | null> {
    const { place, log } = this.options;
    const { holdMs, againMs, awayMs, lookMs } = this.times;
    let seen = { revision: -1, since: 0 };
    let wait = lookMs;
    let isTurn = false;
    const came = turn.then(() => {
      isTurn = true;
    });
    // Told by the wait for it, if there is one.
    came.catch(() => undefined);
    /** Of another place, that was seen to have it. */
    let other: string | null = null;
    for (;;) {
      stop.throwIfAborted();
      const found = await this.read().catch((error: unknown) => {
        log.warn({ event: 'lease_unknown', lease: this.name, err: error });
        return 'unknown' as const;
      });
      const now = this.clock.steady();
      if (found === 'unknown') {
        seen = { revision: -1, since: now };
        await pause(wait, stop);
        wait = Math.min(wait * 2, lookMs * 10);
        continue;
      }
      wait = lookMs;
      const isHere = found !== null && found.record.place !== place;
      if (isHere) other = found.record.holder;
      // A broker that lost everything does not end what it had confirmed.
      const isOthers = isHere || other !== null;
      if (isHere && !found.record.released) {
        if (!patient) throw new OperatorError(`${this.name} is held by ${found.record.holder}: stop that one first`);
        if (found.revision !== seen.revision) seen = { revision: found.revision, since: now };
        if (now - seen.since < awayMs) {
          this.standBy(found.record.holder);
          await pause(lookMs, stop);
          continue;
        }
      }
      if (!isTurn) {
        await Promise.race([came, pause(lookMs, stop)]);
        continue;
      }
      this.carried = found?.record.state ?? null;
      this.term = (found?.record.term ?? 0) + 1;
      this.revision = found?.revision ?? 0;
      if ((await this.write().catch((error: unknown) => this.told(error))) !== true) {
        await pause(againMs, stop);
        continue;
      }
      this.standingBy = null;
      if (isOthers) this.notBefore = this.clock.steady() + holdMs;
      log.info({ event: 'lease_taken', lease: this.name, term: this.term, before: other ?? undefined });
      return found === null ? null : { state: found.record.state, isOthers };
    }
  }

  /** Keeps it until stopped. @throws LeaseLost when another has taken it */
  keep(stop: AbortSignal): Promise<void> {
    this.keeping = this.renewUntil(stop);
    return this.keeping;
  }

  private async renewUntil(stop: AbortSignal): Promise<void> {
    const { log, onLapse } = this.options;
    const { holdMs, renewMs, againMs } = this.times;
    let isLapseTold = false;
    // Beside the writes: one may wait long for its answer.
    const watch = setInterval(() => {
      const isLapsed = this.sinceConfirmed() >= holdMs;
      if (isLapsed && !isLapseTold) {
        onLapse();
        log.warn({ event: 'lease_lapsed', lease: this.name }, 'nothing is done until it is confirmed again');
      }
      isLapseTold = isLapsed;
    }, holdMs / 50);
    try {
      while (!stop.aborted) {
        const isConfirmed = await this.renew();
        await pause(isConfirmed ? renewMs : againMs, stop).catch(() => undefined);
      }
    } finally {
      clearInterval(watch);
    }
  }

  /** Gives it up at once. To be called when nothing is under way any more. What cannot be told is left: it lapses by itself. */
  async release(): Promise<void> {
    await this.keeping?.catch(() => undefined);
    if (this.confirmed === null) return;
    try {
      await this.write(true);
    } catch (error) {
      this.told(error);
    }
    this.confirmed = null;
  }

  private sinceConfirmed(): number {
    if (this.confirmed === null) return Number.POSITIVE_INFINITY;
    const { steady, wall } = this.confirmed;
    return Math.max(this.clock.steady() - steady, this.clock.wall() - wall);
  }

  /** One write, or what its failure tells. @returns whether it was confirmed @throws LeaseLost */
  private async renew(): Promise<boolean> {
    try {
      return await this.write();
    } catch (error) {
      if (apiErrorCode(error) !== WRONG_LAST_SEQUENCE) return this.told(error);
    }
    const found = await this.read().catch((error: unknown) => this.told(error));
    if (found === false) return false;
    // Nobody else's: a write of ours whose answer did not come, or a broker that lost the last of them.
    if (found === null || found.record.boot === this.boot || found.record.term < this.term) {
      this.revision = found?.revision ?? 0;
      return this.write().catch((error: unknown) => this.told(error));
    }
    this.confirmed = null;
    this.options.onLapse();
    throw new LeaseLost(`${this.name} was taken over by ${found.record.holder}, as this one was not heard of`);
  }

  private told(error: unknown): false {
    if (!this.isFaultTold)
      this.options.log.warn({ event: 'lease_unconfirmed', lease: this.name, reason: (error as Error).message });
    this.isFaultTold = true;
    // A broker that was started without its data has no place for leases any more.
    this.bucket = null;
    return false;
  }

  /** @throws when it was not confirmed; apiErrorCode WRONG_LAST_SEQUENCE: another record is there */
  private async write(released = false): Promise<true> {
    const { name, place, state } = this.options;
    const begun = { steady: this.clock.steady(), wall: this.clock.wall() };
    const holder = `${hostname()} (pid ${process.pid})`;
    const record: LeaseRecord = {
      boot: this.boot,
      place,
      holder,
      term: this.term,
      released,
      state: state() ?? this.carried,
    };
    this.bucket ??= await this.open();
    this.revision = await this.bucket.put(name, JSON.stringify(record), { previousSeq: this.revision });
    signOfLife();
    this.confirmed = begun;
    this.isFaultTold = false;
    return true;
  }

  /** The record that is there, or null: there is none, or one that is none of ours. */
  private async read(): Promise<Entry | null> {
    this.bucket ??= await this.open();
    const entry = await this.bucket.get(this.name);
    signOfLife();
    if (entry === null) return null;
    const record = recordShape.safeParse(parsed(entry.string()));
    if (record.success) return { record: record.data, revision: entry.revision };
    // Whoever wrote it does not keep to this: it is taken for one that ended.
    this.options.log.warn({ event: 'lease_unreadable', lease: this.name, revision: entry.revision });
    const nobody = { boot: '', place: '', holder: 'nobody that can be read', term: 1, released: true, state: null };
    return { record: nobody, revision: entry.revision };
  }

  private standBy(holder: string): void {
    if (this.standingBy !== holder)
      this.options.log.info({ event: 'standing_by', lease: this.name, holder }, 'takes over when that one is away');
    this.standingBy = holder;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
