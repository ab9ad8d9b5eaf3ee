/** Which instruments of a venue are asked for, and whether it allows so many. */
import { UsageError } from './cli.ts';
import type { Config } from './config.ts';
import type { Connection, ExchangeModule, Instrument } from './exchange.ts';
import type { Logger } from './log.ts';

/** Every pair that is asked for, and the venue's own ids that are asked for beside them. */
export function instrumentsOf(module: ExchangeModule, config: Config, log: Logger): Instrument[] {
  const { exchange, marketTypes } = module;
  const out = new Map<string, Instrument>();
  for (const pair of config.symbols) {
    for (const type of marketTypes) {
      const instrument = module.instrument(pair, type);
      out.set(instrument.instrument, instrument);
      if (instrument.symbol !== pair)
        log.info({ event: 'other_quote', exchange, asked: pair, taken: instrument.symbol });
    }
  }
  for (const { id } of config.instruments.filter((each) => each.exchange === exchange)) {
    try {
      out.set(id, module.instrumentOf(id));
    } catch (error) {
      throw new UsageError(`MARKETPRISM_INSTRUMENTS: ${exchange}:${id}: ${(error as Error).message}`);
    }
  }
  return [...out.values()];
}

/** @throws UsageError when the venue does not allow so much from one address */
export function checkLimits({ exchange, limits }: ExchangeModule, connections: Connection[]): void {
  if (!limits) return;
  const subscriptions = connections.reduce((sum, { channels }) => sum + channels.length, 0);
  for (const [what, asked, allowed] of [
    // One more is opened beside an old one that is to be closed.
    ['connections', connections.length + 1, limits.connections],
    ['subscriptions', subscriptions, limits.subscriptions],
  ] as const) {
    if (asked > allowed) {
      throw new UsageError(
        `${exchange} allows ${allowed} ${what} from one address, and ${asked} would be needed: take fewer MARKETPRISM_SYMBOLS or MARKETPRISM_INSTRUMENTS`,
      );
    }
  }
}
