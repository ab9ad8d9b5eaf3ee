/** The exchanges that can be simulated, by the names that the rest of the project gives them. */
import { binanceVenue } from './binance_venue.ts';
import { deribitVenue } from './deribit.ts';
import { hyperliquidVenue } from './hyperliquid.ts';
import { okxVenue } from './okx_venue.ts';
import type { VenueMaker } from './options.ts';

export const VENUES: Readonly<Record<string, VenueMaker>> = {
  binance_spot: binanceVenue('spot'),
  binance_derivatives: binanceVenue('usdm'),
  okx_spot: okxVenue('spot'),
  okx_derivatives: okxVenue('swap'),
  hyperliquid: hyperliquidVenue,
  deribit_derivatives: deribitVenue,
};
