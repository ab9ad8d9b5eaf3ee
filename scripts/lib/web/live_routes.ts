/** `/api/live`: what comes now, as server-sent events. */
import { z } from 'zod';
import { LIVE_TYPES, LiveHub, type LiveType } from './live_hub.ts';
import { symbol } from './market_query.ts';
import { Answer, type Route, route } from './route.ts';

const MOST_SYMBOLS = 100;
/** A proxy that gathers before it sends would hold events back. */
const HEADERS = { 'cache-control': 'no-store', 'x-accel-buffering': 'no' };

const listed = z.string().transform((text) => [...new Set(text.split(',').map((each) => each.trim()))]);
const isLive = (type: string): type is LiveType => (LIVE_TYPES as readonly string[]).includes(type);
const areSymbols = (names: string[]) =>
  names.length <= MOST_SYMBOLS && names.every((each) => symbol.safeParse(each).success);

const query = z.strictObject({
  symbols: listed
    .refine(areSymbols, `takes up to ${MOST_SYMBOLS} symbols, as BTC-USDT,ETH-USDT`)
    .optional()
    .meta({ description: 'as BTC-USDT,ETH-USDT; default: all' }),
  types: listed
    .refine((names): names is LiveType[] => names.every(isLive), `takes types of ${LIVE_TYPES.join(', ')}`)
    .default(['trade', 'orderbook'])
    .meta({ description: `of ${LIVE_TYPES.join(', ')}; default: trade,orderbook` }),
});

export const LIVE_ROUTES: Route[] = [
  route({
    ...{ method: 'GET' as const, path: '/api/live', query, types: ['text/event-stream'] },
    summary:
      'Rows as they come, as server-sent events named by their type; of order books the best prices. Others: `broker` (connecting, here, away), `heartbeat`, `dropped` (what a slow reader missed), `end`.',
    async handle(context, { query: { symbols, types }, gone }) {
      const wanted = { symbols: symbols === undefined ? null : new Set(symbols), types: new Set(types) };
      return new Answer(LiveHub.of(context).listen(wanted, gone), 'text/event-stream; charset=utf-8', 200, HEADERS);
    },
  }),
];
