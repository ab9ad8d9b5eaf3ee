/** The exchange modules by name. A new venue is one file here and one line below. */
import { UsageError } from '../lib/cli.ts';
import type { ExchangeModule } from '../lib/exchange.ts';
import type { Exchange } from '../lib/rows.ts';
import { binanceDerivatives, binanceSpot } from './binance.ts';
import { deribitDerivatives } from './deribit.ts';
import { hyperliquid } from './hyperliquid.ts';
import { okxDerivatives, okxSpot } from './okx.ts';

export const EXCHANGE_MODULES: Partial<Record<Exchange, ExchangeModule>> = {
  binance_spot: binanceSpot,
  binance_derivatives: binanceDerivatives,
  okx_spot: okxSpot,
  okx_derivatives: okxDerivatives,
  deribit_derivatives: deribitDerivatives,
  hyperliquid,
};

/** @throws UsageError naming the exchanges that there are. */
export function exchangeModule(name: string): ExchangeModule {
  const found = (EXCHANGE_MODULES as Record<string, ExchangeModule | undefined>)[name];
  if (!found)
    throw new UsageError(`no exchange module "${name}"; there are: ${Object.keys(EXCHANGE_MODULES).join(', ')}`);
  return found;
}
