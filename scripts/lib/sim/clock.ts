/**
 * The time of one simulated exchange: the machine's, until the exchange is made to live through some seconds at once. From
 * then on it is ahead of the machine, and of the other exchanges.
 */
import { steadyNow } from '../steady.ts';
import type { Venue, Wire } from './venue.ts';

/**
 * Skipped time passes in steps of this length: a block or a batch of trades, and short against the stall that markets leave
 * out instead of making up for.
 */
const STEP_MS = 100;
const SECOND_MS = 1000;

export class VenueClock {
  private aheadMs = 0;

  /** Milliseconds since the epoch, with fractions: a function of its own, so that it can be handed on. */
  readonly now = (): number => steadyNow() + this.aheadMs;

  /** Lets `ms` pass at once. */
  leap(ms: number): void {
    this.aheadMs += ms;
  }
}

/**
 * Lets `seconds` pass for one exchange before anything else happens: all that its markets do in that time is done, and written
 * to who is subscribed. Stopped production makes nothing of them. To its connections they are no time: none is closed for not
 * having answered meanwhile, or for not having read it all by the end.
 */
export function liveThrough(venue: Venue, wire: Wire, clock: VenueClock, seconds: number): void {
  const ms = seconds * SECOND_MS;
  for (const peer of wire.peers) peer.beginLeap();
  // What was due already is no part of the leap, and a stall before it none of the first step.
  venue.advance(clock.now());
  for (let passed = 0; passed < ms; passed += STEP_MS) {
    clock.leap(STEP_MS);
    venue.advance(clock.now());
    wire.flush();
  }
  for (const peer of wire.peers) peer.endLeap(ms);
}
