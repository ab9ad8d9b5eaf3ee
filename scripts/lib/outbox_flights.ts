/** Which messages of an outbox are on their way to the broker, and below which place none is. */
import type { OutgoingMessage } from './publisher.ts';

/** Settled entries at the head of the list are let go of in lots of this many. */
const SETTLED_LOT = 1024;

interface Flight {
  /** Position. */
  start: number;
  bytes: number;
  /** When it was added to the outbox, ms. */
  at: number;
  settled: boolean;
}

/** Messages that were handed on in the order of their places, and are answered in any order. */
export class Flights {
  /** Bytes in the files of what is without an answer. */
  bytes = 0;
  /** Their rows. */
  rows = 0;
  private readonly open = new Map<OutgoingMessage, Flight>();
  /** By position; settled ones remain until all before them are settled, too. */
  private readonly order: Flight[] = [];
  private settled = 0;

  get size(): number {
    return this.open.size;
  }

  /** The first one without an answer. */
  get first(): { start: number; at: number } | undefined {
    return this.order[this.settled];
  }

  has(message: OutgoingMessage): boolean {
    return this.open.has(message);
  }

  /** @param message an object that is not in flight already */
  add(message: OutgoingMessage, start: number, bytes: number, at: number): void {
    const flight = { start, bytes, at, settled: false };
    this.open.set(message, flight);
    this.order.push(flight);
    this.bytes += bytes;
    this.rows += message.rows;
  }

  /** It is answered. @returns false when it is not in flight */
  settle(message: OutgoingMessage): boolean {
    const flight = this.open.get(message);
    if (!flight) return false;
    this.open.delete(message);
    this.bytes -= flight.bytes;
    this.rows -= message.rows;
    flight.settled = true;
    while (this.order[this.settled]?.settled) this.settled += 1;
    if (this.settled === this.order.length || this.settled >= SETTLED_LOT) {
      this.order.splice(0, this.settled);
      this.settled = 0;
    }
    return true;
  }

  /** What is in flight from `position` on is handed on anew: `first` no longer tells of it, though its bytes count. */
  rewind(position: number): void {
    const from = this.order.findIndex(({ start }, i) => i >= this.settled && start >= position);
    if (from >= 0) this.order.length = from;
  }
}
