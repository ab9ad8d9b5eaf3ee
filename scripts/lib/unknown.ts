/** Frames that nobody understood: a bounded sample of them, for a person to look at. */
import { appendFileSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** A few frames tell what a reason is about; a storm of garbage must not fill the disk. */
const PER_REASON = 20;
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_FRAME_CHARACTERS = 4096;
const MAX_REASONS = 200;

export class UnknownSample {
  private readonly counts = new Map<string, number>();
  private readonly path: string;
  private bytes: number;

  /** Appends to `<dataDir>/unknown/<exchange>.ndjson`, which never grows beyond 1 MiB. */
  constructor(dataDir: string, exchange: string) {
    const directory = join(dataDir, 'unknown');
    mkdirSync(directory, { recursive: true });
    this.path = join(directory, `${exchange}.ndjson`);
    this.bytes = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** @param receivedAt µs since the epoch */
  add(reason: string, text: string, receivedAt: number): void {
    const count = this.counts.get(reason) ?? 0;
    if (count >= PER_REASON || (count === 0 && this.counts.size >= MAX_REASONS)) return;
    this.counts.set(reason, count + 1);
    const line = `${JSON.stringify({ received_at: receivedAt, reason, frame: text.slice(0, MAX_FRAME_CHARACTERS) })}\n`;
    this.bytes += Buffer.byteLength(line);
    if (this.bytes <= MAX_FILE_BYTES) appendFileSync(this.path, line);
  }
}
