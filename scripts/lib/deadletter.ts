/** Rows that cannot be stored: kept with the reason, never dropped. */
import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export interface DeadLetter {
  reason: string;
  subject: string;
  js_epoch: number;
  js_seq: number;
  /** The row's text as it came. */
  row: string;
}

/**
 * Appends to `data/deadletter/<type>/<day>.ndjson` and returns once it is on disk: only then may the message be
 * acknowledged.
 */
export function appendDeadLetters(dataDir: string, type: string, letters: DeadLetter[], now: Date): void {
  const directory = join(dataDir, 'deadletter', type);
  mkdirSync(directory, { recursive: true });
  const file = openSync(join(directory, `${now.toISOString().slice(0, 10)}.ndjson`), 'a');
  try {
    const at = now.toISOString();
    writeSync(file, letters.map((letter) => `${JSON.stringify({ at, ...letter })}\n`).join(''));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
