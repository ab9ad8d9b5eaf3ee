/** A feed of Deribit with all that comes out of it. */
import { deribitDerivatives } from '../scripts/exchanges/deribit.ts';
import type { Instrument } from '../scripts/lib/exchange.ts';
import { feedHarness } from './feed_harness.ts';

export const NOW = 1786563104600_000;

export function harness(orderbookIntervalMs = 0, instruments: Instrument[] = []) {
  const run = feedHarness(deribitDerivatives, NOW, { orderbookIntervalMs, instruments });
  return { ...run, rest: (method: string, body: unknown) => run.rest(`/api/v2/public/${method}`, body) };
}
