/** Gathers rows of one subject into one JetStream message. */
import type { OutgoingMessage } from './publisher.ts';
import { type DataType, encodeRow, type LevelTexts, type Rows } from './rows.ts';
import { subjectOf } from './streams.ts';

/** A message is closed at this size, well below the broker's default limit of 1 MiB. */
const MAX_BYTES = 256 * 1024;
const MAX_ROWS = 1000;
const FIRST_BYTES = 512;
const EMPTY = Buffer.alloc(0);
/** Of UTF-8 for a unit of UTF-16. */
const MOST_BYTES_PER_UNIT = 3;

interface Batch {
  subject: string;
  rows: number;
  /** Event time of the first row, ms. */
  first: number;
  /** The rows' lines as bytes: text that waits would be copied by each collection of garbage, in the many pieces that it was made of. */
  lines: ByteText;
}

/**
 * Rows in, messages out. A message leaves when it is full, or at the next `flush`, which the owner calls every few
 * milliseconds (the linger).
 */
export class Batcher {
  /** Batches by type, exchange and instrument: no text is built per row to find one. */
  private readonly batches = new Map<DataType, Map<string, Map<string, Batch>>>();
  private readonly filled = new Set<Batch>();

  constructor(private readonly emit: (message: OutgoingMessage) => void) {}

  /** @throws ValueError when a value does not fit its column; nothing is added then. */
  add<T extends DataType>(type: T, row: Rows[T], texts?: LevelTexts): void {
    const line = encodeRow(type, row, texts);
    const batch = this.batchOf(type, row);
    if (batch.rows === 0) {
      batch.first = row.timestamp;
      batch.lines.append(line);
      this.filled.add(batch);
    } else batch.lines.append(`\n${line}`);
    batch.rows += 1;
    if (batch.lines.length >= MAX_BYTES || batch.rows >= MAX_ROWS) this.close(batch);
  }

  /** Closes and emits every batch that holds rows. @returns how many */
  flush(): number {
    const { size } = this.filled;
    for (const batch of this.filled) this.close(batch);
    return size;
  }

  private batchOf<T extends DataType>(type: T, row: Rows[T]): Batch {
    const ofExchange = member(member(this.batches, type), row.exchange);
    let batch = ofExchange.get(row.instrument);
    if (!batch) {
      const { exchange, market_type, symbol } = row;
      const subject = subjectOf({ type, exchange, market_type, symbol });
      batch = { subject, rows: 0, first: 0, lines: new ByteText() };
      ofExchange.set(row.instrument, batch);
    }
    return batch;
  }

  private close(batch: Batch): void {
    this.filled.delete(batch);
    const { subject, rows, first } = batch;
    batch.rows = 0;
    this.emit({ subject, payload: batch.lines.take(), rows, id: `${subject}:${first}` });
  }
}

/** Text that grows, as UTF-8. */
class ByteText {
  length = 0;
  private buffer = EMPTY;
  private wanted = FIRST_BYTES;

  append(text: string): void {
    const most = this.length + text.length * MOST_BYTES_PER_UNIT;
    if (most > this.buffer.length) this.grow(most);
    this.length += this.buffer.write(text, this.length);
  }

  /** What is written, for good; the next text begins with as much room, once there is any. */
  take(): Buffer {
    const written = this.buffer.subarray(0, this.length);
    this.wanted = Math.max(FIRST_BYTES, this.length + (this.length >> 2));
    this.buffer = EMPTY;
    this.length = 0;
    return written;
  }

  private grow(least: number): void {
    const larger = Buffer.allocUnsafe(Math.max(least, this.buffer.length * 2, this.wanted));
    this.buffer.copy(larger, 0, 0, this.length);
    this.buffer = larger;
  }
}

/** The map inside `maps` at `key`, made when it is not there yet. */
function member<K, L, V>(maps: Map<K, Map<L, V>>, key: K): Map<L, V> {
  let found = maps.get(key);
  if (!found) maps.set(key, (found = new Map()));
  return found;
}
