/** Binance's REST answers as text: every field as the exchange writes it. */
import type { Product } from './binance.ts';
import type { BookSnapshot, CandleRow, Level, Listed, RestAnswer, TradeRow } from './venue.ts';

export function ok(body: string): RestAnswer {
  return { status: 200, body };
}

export function fault(code: number, msg: string): RestAnswer {
  return { status: 400, body: JSON.stringify({ code, msg }) };
}

/** Answers for the symbol that a request must name, or says what is wrong with it. */
export function ofSymbol<Found>(
  query: URLSearchParams,
  find: (symbol: string) => Found | undefined,
  answer: (found: Found) => RestAnswer,
): RestAnswer {
  const symbol = query.get('symbol');
  if (!symbol) return fault(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.");
  const found = find(symbol);
  return found === undefined ? fault(-1121, 'Invalid symbol.') : answer(found);
}

/** The answer to a depth request. */
export function depthText(product: Product, book: BookSnapshot): string {
  const times = product === 'spot' ? '' : `"E":${book.time},"T":${book.changedAt},`;
  const side = (levels: readonly Level[]): string =>
    levels.map(([price, quantity]) => `["${price}","${quantity}"]`).join(',');
  return `{"lastUpdateId":${book.lastUpdateId},${times}"bids":[${side(book.bids)}],"asks":[${side(book.asks)}]}`;
}

/** One row of spot's single trades. */
export function historicalTrade(row: TradeRow): string {
  return (
    `{"id":${row.id},"price":"${row.price}","qty":"${row.quantity}","quoteQty":"${product8(row.price, row.quantity)}",` +
    `"time":${row.time},"isBuyerMaker":${row.buyerIsMaker},"isBestMatch":true}`
  );
}

/** One row of aggregated trades. */
export function aggregateRow(product: Product, row: TradeRow): string {
  const nonRpi = product === 'spot' ? '' : `"nq":"${row.quantity}",`;
  const end = product === 'spot' ? ',"M":true}' : '}';
  return (
    `{"a":${row.id},"p":"${row.price}","q":"${row.quantity}",${nonRpi}"f":${row.first},"l":${row.last},` +
    `"T":${row.time},"m":${row.buyerIsMaker}${end}`
  );
}

/** One candle, the taker's share of its volume left at zero. */
export function klineRow({ start, open, high, low, close, quantity, worth, trades }: CandleRow, width: number): string {
  const times = [start, start + width - 1];
  return `[${times[0]},"${open}","${high}","${low}","${close}","${quantity}",${times[1]},"${worth}",${trades},"0","0","0"]`;
}

/** The product of two decimal texts, cut after eight decimals. */
export function product8(one: string, other: string): string {
  const digits = BigInt(one.replace('.', '')) * BigInt(other.replace('.', ''));
  const decimals = (one.split('.')[1]?.length ?? 0) + (other.split('.')[1]?.length ?? 0);
  const scaled = decimals >= 8 ? digits / 10n ** BigInt(decimals - 8) : digits * 10n ** BigInt(8 - decimals);
  const text = String(scaled).padStart(9, '0');
  return `${text.slice(0, -8)}.${text.slice(-8)}`;
}

/** Spot's list of instruments; `limit` is the request weight per minute. */
export function spotInfo(pairs: readonly Listed[], serverTime: number, limit: number): string {
  return JSON.stringify({
    timezone: 'UTC',
    serverTime,
    rateLimits: [
      { rateLimitType: 'REQUEST_WEIGHT', interval: 'MINUTE', intervalNum: 1, limit },
      { rateLimitType: 'RAW_REQUESTS', interval: 'MINUTE', intervalNum: 5, limit: 300_000 },
    ],
    exchangeFilters: [],
    symbols: pairs.map((pair) => ({
      symbol: pair.instrument,
      status: 'TRADING',
      baseAsset: pair.base,
      baseAssetPrecision: 8,
      quoteAsset: pair.quote,
      quotePrecision: 8,
      quoteAssetPrecision: 8,
      orderTypes: ['LIMIT', 'MARKET'],
      isSpotTradingAllowed: true,
      isMarginTradingAllowed: false,
      filters: [
        { filterType: 'PRICE_FILTER', minPrice: pair.tickSize, maxPrice: '1000000.00000000', tickSize: pair.tickSize },
        { filterType: 'LOT_SIZE', minQty: pair.stepSize, maxQty: '9000000.00000000', stepSize: pair.stepSize },
        { filterType: 'NOTIONAL', minNotional: '5.00000000', applyMinToMarket: true, maxNotional: '9000000.00000000' },
      ],
      permissions: [],
      permissionSets: [['SPOT']],
    })),
  });
}

/** The list of USDⓈ-M perpetuals. */
export function usdmInfo(pairs: readonly Listed[], serverTime: number, limit: number): string {
  return JSON.stringify({
    timezone: 'UTC',
    serverTime,
    futuresType: 'U_MARGINED',
    rateLimits: [{ rateLimitType: 'REQUEST_WEIGHT', interval: 'MINUTE', intervalNum: 1, limit }],
    exchangeFilters: [],
    assets: [{ asset: 'USDT', marginAvailable: true, autoAssetExchange: '-10000' }],
    symbols: pairs.map((pair) => ({
      symbol: pair.instrument,
      pair: pair.instrument,
      contractType: 'PERPETUAL',
      deliveryDate: 4_133_404_800_000,
      onboardDate: 1_569_398_400_000,
      status: 'TRADING',
      baseAsset: pair.base,
      quoteAsset: pair.quote,
      marginAsset: pair.quote,
      pricePrecision: pair.pricePrecision,
      quantityPrecision: pair.quantityPrecision,
      baseAssetPrecision: 8,
      quotePrecision: 8,
      underlyingType: 'COIN',
      filters: [
        { filterType: 'PRICE_FILTER', minPrice: pair.tickSize, maxPrice: '1000000', tickSize: pair.tickSize },
        { filterType: 'LOT_SIZE', minQty: pair.stepSize, maxQty: '1000000', stepSize: pair.stepSize },
        { filterType: 'MIN_NOTIONAL', notional: '5' },
      ],
      orderTypes: ['LIMIT', 'MARKET'],
    })),
  });
}
