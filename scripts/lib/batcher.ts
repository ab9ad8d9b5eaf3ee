/** Gathers rows of one subject into one JetStream message. */
import { createHash } from 'node:crypto';
import type { OutgoingMessage } from './publisher.ts';
import { type DataType, encodeRow, type LevelTexts, type Rows, TABLES } from './rows.ts';
import { subjectOf } from './streams.ts';

/** A message is closed at this size, well below the broker's default limit of 1 MiB. */
const MAX_BYTES = 256 * 1024;
const MAX_ROWS = 1000;

interface Batch {
  subject: string;
  lines: string[];
  keys: string;
  characters: number;
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
    batch.lines.push(line);
    batch.characters += line.length + 1;
    const values = row as unknown as Record<string, unknown>;
    for (const member of TABLES[type].key) batch.keys += `${values[member]}\n`;
    this.filled.add(batch);
    if (batch.characters >= MAX_BYTES || batch.lines.length >= MAX_ROWS) this.close(batch);
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
      batch = { subject: subjectOf({ type, exchange, market_type, symbol }), lines: [], keys: '', characters: 0 };
      ofExchange.set(row.instrument, batch);
    }
    return batch;
  }

  private close(batch: Batch): void {
    this.filled.delete(batch);
    const digest = createHash('md5').update(batch.keys).digest('base64url');
    this.emit({
      subject: batch.subject,
      payload: Buffer.from(batch.lines.join('\n')),
      rows: batch.lines.length,
      id: `${batch.subject}:${digest}`,
    });
    batch.lines = [];
    batch.keys = '';
    batch.characters = 0;
  }
}

/** The map inside `maps` at `key`, made when it is not there yet. */
function member<K, L, V>(maps: Map<K, Map<L, V>>, key: K): Map<L, V> {
  let found = maps.get(key);
  if (!found) maps.set(key, (found = new Map()));
  return found;
}
