/**
 * What all processes of a data directory have asked of one host: the weight used in this minute, and until when the host refuses.
 *
 * Used weight is the size of a file named after the minute: a request appends as many bytes as it weighs. Appending is atomic, so
 * that nobody needs a lock, and a process that dies leaves nothing half done. A refusal is a small file of its own. On a full disk
 * each process goes on with what it knows itself.
 */
import { appendFileSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, writeJsonAtomic } from './files.ts';
import { steadyNow, steadyTime } from './steady.ts';

const MINUTE_MS = 60_000;
/** The file of a minute that is over is of no use to anybody. */
const KEEP_MS = 5 * MINUTE_MS;

/** `until`: wall clock, ms. `blocked`: it does not serve this region, or its firewall shut us out; otherwise too much was asked. */
const REFUSAL = z.object({ until: z.number(), reason: z.string(), blocked: z.boolean() });
export type Refusal = z.output<typeof REFUSAL>;
/** As a process keeps it: the wall clock may be set before it ends. */
export type HeldRefusal = Refusal & { endsAt: number };

export class RequestBudget {
  private readonly directory: string;
  private readonly name: string;
  private minute = 0;
  /** Weight of this minute that could not be written. */
  private unwritten = 0;
  /** Of those that this process knows, the one that ends last; `endsAt` by the steady clock, ms. */
  private held: HeldRefusal | null = null;
  /** The end, as written, of the refusal that the file held last. */
  private lastUntil = 0;

  /**
   * @param host its address; host and port together name the budget
   * @param onFault told when something could not be written
   */
  constructor(
    dataDir: string,
    host: string,
    private readonly onFault: (error: unknown) => void,
  ) {
    this.directory = join(dataDir, 'state', 'requests');
    this.name = host.replace(/^\w+:\/\//, '').replace(/[^\w.-]/g, '_');
    mkdirSync(this.directory, { recursive: true });
  }

  /** Weight that was taken in the minute of `now`, wall clock, ms. */
  used(now: number): number {
    const written = statSync(this.minuteFile(now), { throwIfNoEntry: false })?.size ?? 0;
    return written + (Math.floor(now / MINUTE_MS) === this.minute ? this.unwritten : 0);
  }

  /** Takes `weight` from the minute of `now`. */
  take(now: number, weight: number): void {
    const minute = Math.floor(now / MINUTE_MS);
    if (minute !== this.minute) {
      this.removeOld(now);
      this.unwritten = 0;
    }
    this.minute = minute;
    try {
      appendFileSync(this.minuteFile(now), '.'.repeat(weight));
    } catch (error) {
      this.unwritten += weight;
      this.onFault(error);
    }
  }

  /** The venue's own count for the minute of `now` holds where it is higher: others may ask from the same address. */
  told(now: number, weight: number): void {
    const missing = weight - this.used(now);
    if (missing > 0) this.take(now, missing);
  }

  /** The refusal that holds at `now` (steady clock, ms), whichever process met it; null: none. */
  refusal(now = steadyNow()): HeldRefusal | null {
    const path = this.refusalFile();
    const told = statSync(path, { throwIfNoEntry: false }) ? REFUSAL.safeParse(readJson(path)).data : undefined;
    // Once, as the wall clock stands then: what this process knows is not told longer by setting it.
    if (told && told.until !== this.lastUntil) this.hold(told);
    if (told) this.lastUntil = told.until;
    return this.held !== null && now < this.held.endsAt ? this.held : null;
  }

  /** Notes that nothing may be asked before `refusal.until`. A later, shorter refusal does not end a longer one. */
  refuse(refusal: Refusal): HeldRefusal {
    const before = this.refusal();
    const held = this.hold(refusal);
    if (held === before) return held;
    try {
      writeJsonAtomic(this.refusalFile(), refusal);
      this.lastUntil = refusal.until;
    } catch (error) {
      this.onFault(error);
    }
    return held;
  }

  private hold(refusal: Refusal): HeldRefusal {
    const endsAt = steadyTime(refusal.until);
    if (this.held === null || endsAt > this.held.endsAt) this.held = { ...refusal, endsAt };
    return this.held;
  }

  private minuteFile(now: number): string {
    return join(this.directory, `${this.name}.${Math.floor(now / MINUTE_MS)}`);
  }

  private refusalFile(): string {
    return join(this.directory, `${this.name}.refused.json`);
  }

  private removeOld(now: number): void {
    for (const file of readdirSync(this.directory)) {
      const minute = Number(/\.(\d+)$/.exec(file)?.[1] ?? Number.NaN);
      if (file.startsWith(`${this.name}.`) && minute * MINUTE_MS < now - KEEP_MS) {
        rmSync(join(this.directory, file), { force: true });
      }
    }
  }
}
