/**
 * What all processes of a data directory have asked of one host: the weight used in this minute, and until when the host refuses.
 *
 * Used weight is the size of a file named after the minute: a request appends as many bytes as it weighs. Appending is atomic, so
 * that nobody needs a lock, and a process that dies leaves nothing half done. A refusal is a small file of its own.
 */
import { appendFileSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, writeJsonAtomic } from './files.ts';

const MINUTE_MS = 60_000;
/** The file of a minute that is over is of no use to anybody. */
const KEEP_MS = 5 * MINUTE_MS;

/** `blocked`: it does not serve this region, or its firewall shut us out; otherwise too much was asked. */
const REFUSAL = z.object({ until: z.number(), reason: z.string(), blocked: z.boolean() });
export type Refusal = z.output<typeof REFUSAL>;

export class RequestBudget {
  private readonly directory: string;
  private readonly name: string;
  private minute = 0;

  /** @param host its address; scheme, host and port together name the budget */
  constructor(dataDir: string, host: string) {
    this.directory = join(dataDir, 'state', 'requests');
    this.name = host.replace(/^\w+:\/\//, '').replace(/[^\w.-]/g, '_');
    mkdirSync(this.directory, { recursive: true });
  }

  /** Weight that was taken in the minute of `now`, ms. */
  used(now: number): number {
    return statSync(this.minuteFile(now), { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Takes `weight` from the minute of `now`. */
  take(now: number, weight: number): void {
    const minute = Math.floor(now / MINUTE_MS);
    if (minute !== this.minute) this.removeOld(now);
    this.minute = minute;
    appendFileSync(this.minuteFile(now), '.'.repeat(weight));
  }

  /** The venue's own count for the minute of `now` holds where it is higher: others may ask from the same address. */
  told(now: number, weight: number): void {
    const missing = weight - this.used(now);
    if (missing > 0) this.take(now, missing);
  }

  /** The refusal that holds at `now`, whichever process met it; null: none. */
  refusal(now: number): Refusal | null {
    const path = this.refusalFile();
    if (!statSync(path, { throwIfNoEntry: false })) return null;
    const parsed = REFUSAL.safeParse(readJson(path));
    return parsed.success && now < parsed.data.until ? parsed.data : null;
  }

  /** Notes that nothing may be asked before `refusal.until`. A later, shorter refusal does not end a longer one. */
  refuse(now: number, refusal: Refusal): Refusal {
    const held = this.refusal(now);
    if (held && held.until >= refusal.until) return held;
    writeJsonAtomic(this.refusalFile(), refusal);
    return refusal;
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
