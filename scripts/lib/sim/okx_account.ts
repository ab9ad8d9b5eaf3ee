/** The positions of an account at OKX: told for a signed request only, and, as its prices, a function of time. */
import { createHmac } from 'node:crypto';
import { seededRandom, seedFor } from './market.ts';
import { trimmed } from './okx_books.ts';
import type { OkxChart, OkxCharts } from './okx_chart.ts';
import { sizeText } from './okx_instruments.ts';
import { okxOk, wrongParameter } from './okx_rest.ts';
import type { RestAnswer, RestRequest } from './venue.ts';

/** The only key that there is; it opens nothing but the simulator. */
export const DEMO_KEY = { key: 'demo-key', secret: 'demo-secret', passphrase: 'demo-passphrase' } as const;

const PATH = '/api/v5/account/positions';
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
/** A request's time may be off by so much, each way. */
const TIMESTAMP_SPAN_MS = 30_000;
/** The venue's form of time, and the only one. */
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
/** Headers that must not be empty, in the order in which they are missed. */
const REQUIRED = [
  ['OK-ACCESS-KEY', '50103'],
  ['OK-ACCESS-PASSPHRASE', '50104'],
  ['OK-ACCESS-SIGN', '50106'],
  ['OK-ACCESS-TIMESTAMP', '50107'],
] as const;

/** All positions are opened anew in each term, one after the other in its first hours: so they win and lose together. */
const TERM_MS = 36 * HOUR_MS;
const OPENING_MS = 3 * HOUR_MS;
/** What a position is worth when it is opened, quote units. */
const VALUE = { least: 500, most: 8000 } as const;
/** Maintenance margin and the fee of a taker, of the value. */
const MAINTENANCE = 0.004;
const FEE = 0.0005;
/** What stands behind the positions in cross margin, quote units. */
const BALANCE = 50_000;

interface Slot {
  readonly coin: string;
  readonly isShort: boolean;
  /** How the side is told: an account has one way; here both are met. */
  readonly isNet: boolean;
  readonly isCross: boolean;
  readonly lever: number;
}

/** Isolated positions are lost when their margin is; what is in cross margin, with more leverage, is held by the balance. */
const SLOTS: readonly Slot[] = [
  ...['SOL', 'XRP', 'DOGE', 'LTC', 'LINK', 'UNI', 'NEAR', 'APT', 'AAVE', 'CRV'].map((coin, place) => ({
    ...{ coin, isShort: true, isNet: place % 4 === 3, isCross: place % 5 !== 0, lever: place % 5 === 0 ? 10 : 50 },
  })),
  ...['BNB', 'SUI', 'TRX', 'DOT', 'FIL'].map((coin, place) => ({
    ...{ coin, isShort: false, isNet: place === 4, isCross: place % 2 === 0, lever: place % 2 === 0 ? 20 : 10 },
  })),
];

export class OkxAccount {
  constructor(
    private readonly charts: OkxCharts,
    private readonly seed: number,
    private readonly clock: () => number,
  ) {}

  /** The answer to a request for positions; undefined when it is for something else. */
  rest(request: RestRequest): RestAnswer | undefined {
    if (request.path !== PATH) return undefined;
    const now = Math.floor(this.clock());
    const fault = refusalOf(request, now);
    if (fault) return unauthorized(...fault);
    const { query } = request;
    const type = query.get('instType') || 'SWAP';
    if (!['MARGIN', 'SWAP', 'FUTURES', 'OPTION'].includes(type)) return wrongParameter('instType');
    const ids = listOf(query, 'instId');
    const positions = listOf(query, 'posId');
    if (ids !== null && ids.length > 10) return wrongParameter('instId');
    const rows = (type === 'SWAP' ? SLOTS : []).flatMap((slot, place) => this.row(slot, place, now) ?? []);
    const found = rows.filter(
      ({ instId, posId }) => (ids?.includes(instId) ?? true) && (positions?.includes(posId) ?? true),
    );
    return okxOk(found.map((row) => JSON.stringify(row)));
  }

  /** A position as it is now; null while it is not open, or when it was lost. */
  private row(slot: Slot, place: number, now: number) {
    const { coin, isShort, isNet, isCross, lever } = slot;
    const chart = this.charts.of(`${coin}-USDT-SWAP`);
    if (!chart) return null;
    const term = Math.floor(now / TERM_MS);
    const random = seededRandom(seedFor(this.seed, `position ${coin} ${term}`));
    const opened = term * TERM_MS + Math.floor((random() * OPENING_MS) / MINUTE_MS) * MINUTE_MS;
    if (now < opened) return null;
    const { listed } = chart;
    const unit = 10 ** -listed.priceDecimals;
    const [entry, mark] = [chart.priceBefore(opened) * unit, chart.priceBefore(now + 1) * unit];
    const wanted = VALUE.least + (VALUE.most - VALUE.least) * random();
    const lots = Math.max(1, Math.round((wanted / entry) * 10 ** listed.baseDecimals));
    const base = lots * 10 ** -listed.baseDecimals;
    const direction = isShort ? -1 : 1;
    const liquidation = entry * (1 - direction * (1 / lever - MAINTENANCE));
    if (!isCross && isLost(chart, opened, now, direction, liquidation / unit)) return null;
    const upl = direction * (mark - entry) * base;
    const initial = (entry * base) / lever;
    const maintenance = mark * base * MAINTENANCE;
    const fee = -entry * base * FEE;
    const size = sizeText(listed, lots);
    const price = (value: number): string => text(value, listed.priceDecimals);
    const last = price(mark);
    const [profit, ratio] = [text(upl), text(upl / initial)];
    return {
      instType: 'SWAP',
      instId: listed.instrument,
      mgnMode: isCross ? 'cross' : 'isolated',
      posId: `${opened}${String(place).padStart(6, '0')}`,
      posSide: isNet ? 'net' : isShort ? 'short' : 'long',
      pos: isNet && isShort ? `-${size}` : size,
      availPos: size,
      avgPx: price(entry),
      markPx: last,
      last,
      idxPx: last,
      usdPx: '1',
      bePx: text(entry * (1 + direction * 2 * FEE)),
      upl: profit,
      uplRatio: ratio,
      uplLastPx: profit,
      uplRatioLastPx: ratio,
      lever: String(lever),
      liqPx: isCross ? '' : text(liquidation),
      imr: isCross ? text((mark * base) / lever) : '',
      margin: isCross ? '' : text(initial),
      mgnRatio: text(((isCross ? BALANCE : initial) + upl) / maintenance),
      mmr: text(maintenance),
      notionalUsd: text(mark * base),
      adl: '1',
      ccy: listed.quote,
      realizedPnl: text(fee),
      pnl: '0',
      fee: text(fee),
      fundingFee: '0',
      liqPenalty: '0',
      nonSettleAvgPx: '',
      settledPnl: '',
      interest: '',
      tradeId: String(1 + Math.floor(random() * 1e9)),
      cTime: String(opened),
      uTime: String(opened),
      closeOrderAlgo: [],
    };
  }
}

/** Why a request is not that of the key's owner: code and text. */
function refusalOf({ method, target = '', body, headers = {} }: RestRequest, now: number): [string, string] | null {
  const header = (name: string): string => String(headers[name.toLowerCase()] ?? '');
  for (const [name, code] of REQUIRED) {
    if (header(name) === '') return [code, `Request header ${name} can not be empty.`];
  }
  const timestamp = header('OK-ACCESS-TIMESTAMP');
  const time = TIMESTAMP.test(timestamp) ? Date.parse(timestamp) : Number.NaN;
  if (Number.isNaN(time)) return ['50112', 'Invalid OK-ACCESS-TIMESTAMP'];
  if (Math.abs(now - time) > TIMESTAMP_SPAN_MS) return ['50102', 'Timestamp request expired'];
  if (header('OK-ACCESS-KEY') !== DEMO_KEY.key) return ['50111', 'Invalid OK-ACCESS-KEY'];
  if (header('OK-ACCESS-PASSPHRASE') !== DEMO_KEY.passphrase) {
    return ['50105', 'Request header OK-ACCESS-PASSPHRASE incorrect.'];
  }
  const sign = createHmac('sha256', DEMO_KEY.secret).update(`${timestamp}${method}${target}${body}`).digest('base64');
  return header('OK-ACCESS-SIGN') === sign ? null : ['50113', 'Invalid Sign'];
}

/** The venue leaves `data` out of these. */
function unauthorized(code: string, msg: string): RestAnswer {
  return { status: 401, body: JSON.stringify({ msg, code }) };
}

/** True when the price went beyond where the margin ends, at any time since the opening. */
function isLost(chart: OkxChart, opened: number, now: number, direction: number, limit: number): boolean {
  const { high, low } = chart.bar(opened, now + 1);
  return direction < 0 ? high >= limit : low <= limit;
}

function listOf(query: URLSearchParams, name: string): string[] | null {
  const given = query.get(name);
  return given ? given.split(',') : null;
}

function text(value: number, decimals = 8): string {
  const printed = trimmed(value.toFixed(decimals));
  return printed === '-0' ? '0' : printed;
}
