/** What is worth telling: divergences between price and flow, conflicts of both indicators, and what is out of the ordinary. */
import { consistencyOf, LAG_MS } from './fusion.ts';

export const EVENT_TYPES = [
  'bull_div',
  'bear_div',
  'hidden_bull',
  'hidden_bear',
  'ofi_cvd_conflict',
  'ofi_cvd_divergence',
  'anomaly',
  'price_anomaly',
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** A pivot has so many samples on each side that are not beyond it, and so many between it and the one before. */
const PIVOT_SIDE = 12;
const PIVOT_APART = 6;
const PIVOT_SPAN = 2 * PIVOT_SIDE + 1;
/** A divergence is told from this score on (0 to 100). */
const LEAST_SCORE = 35;
/** Shares of the score. */
const SCORE_Z = 0.35;
const SCORE_PIVOT = 0.25;
const SCORE_AGREE = 0.25;
/** Samples at the beginning, in which scores count less; and scores of a book that is too old. */
const WARM_UP = 100;
const WARM_UP_FACTOR = 0.3;
const LAG_FACTOR = 0.5;
/** From one event of a type to the next one, ms of event time. */
const COOLDOWN_MS = 1000;

const CONFLICT_OFI = 2;
const CONFLICT_CVD = 1;
const CONFLICT_SCORE = 60;
const DIVERGENCE_Z = 2.5;
const ANOMALY_OFI = 3;
const ANOMALY_CVD = 2.5;
/** Of the price of the trade before. */
const PRICE_JUMP = 0.05;

export type Direction = 'bullish' | 'bearish';
export type Trigger = 'ofi' | 'cvd' | 'both' | 'price';

export interface MarketEvent {
  event_type: EventType;
  strength_score: number;
  direction: Direction | null;
  trigger_by: Trigger;
  meta: object;
}

/** A trade with both indicators as they stood then. z as computed: nothing is clipped, or two rules could never be met. */
export interface Sample {
  time: number;
  price: number;
  ofi: number;
  cvd: number;
}

interface Pivot extends Sample {
  /** Of the sample, counted from the beginning. */
  at: number;
}

/** Plain data. */
export interface EventState {
  samples: Sample[];
  count: number;
  low: Pivot | null;
  high: Pivot | null;
  /** When each type was last told, ms. */
  told: Partial<Record<EventType, number>>;
  price: number | null;
}

export function freshEvents(): EventState {
  return { samples: [], count: 0, low: null, high: null, told: {}, price: null };
}

export interface Moment {
  time: number;
  price: number;
  /** Null while it is not known. */
  ofi: number | null;
  cvd: number | null;
  /** How much older the book is than the trade, ms. */
  lag: number | null;
}

/** Takes a trade in. @returns what happened with it */
export function takeEvents(state: EventState, moment: Moment): MarketEvent[] {
  const { time, price, ofi, cvd, lag } = moment;
  const found: MarketEvent[] = [];
  const jump = priceJump(state, price);
  if (jump !== null) found.push(jump);
  state.price = price;
  if (ofi !== null && cvd !== null) {
    found.push(...divergences(state, { time, price, ofi, cvd }, lag ?? 0));
    found.push(...conflicts(ofi, cvd));
  }
  const unusual = anomaly(ofi, cvd);
  if (unusual !== null) found.push(unusual);
  return found.filter(({ event_type }) => {
    const before = state.told[event_type];
    if (before !== undefined && time < before + COOLDOWN_MS) return false;
    state.told[event_type] = time;
    return true;
  });
}

function priceJump({ price: before }: EventState, price: number): MarketEvent | null {
  if (before === null) return null;
  const change = (price - before) / before;
  if (Math.abs(change) <= PRICE_JUMP) return null;
  const direction = change > 0 ? 'bullish' : 'bearish';
  const meta = { price, before, change };
  return { event_type: 'price_anomaly', strength_score: 100 * Math.abs(change), direction, trigger_by: 'price', meta };
}

/** Both indicators at once, of opposite signs. */
function conflicts(ofi: number, cvd: number): MarketEvent[] {
  if (ofi * cvd >= 0) return [];
  const [flow, volume] = [Math.abs(ofi), Math.abs(cvd)];
  const direction = ofi > 0 ? 'bullish' : 'bearish';
  const meta = { z_ofi: ofi, z_cvd: cvd };
  const events: MarketEvent[] = [];
  if (flow >= CONFLICT_OFI && volume >= CONFLICT_CVD)
    events.push({
      ...{ event_type: 'ofi_cvd_conflict', strength_score: CONFLICT_SCORE, direction, trigger_by: 'both', meta },
    });
  if (flow > DIVERGENCE_Z && volume > DIVERGENCE_Z)
    events.push({
      ...{ event_type: 'ofi_cvd_divergence', strength_score: (flow + volume) / 2, direction, trigger_by: 'both', meta },
    });
  return events;
}

function anomaly(ofi: number | null, cvd: number | null): MarketEvent | null {
  const isFlow = ofi !== null && Math.abs(ofi) > ANOMALY_OFI;
  const isVolume = cvd !== null && Math.abs(cvd) > ANOMALY_CVD;
  if (!isFlow && !isVolume) return null;
  const trigger = isFlow && isVolume ? 'both' : isFlow ? 'ofi' : 'cvd';
  const leading = isFlow ? ofi : cvd!;
  const strength = Math.max(isFlow ? Math.abs(ofi) : 0, isVolume ? Math.abs(cvd) : 0);
  const direction = leading > 0 ? 'bullish' : 'bearish';
  const meta = { z_ofi: ofi, z_cvd: cvd };
  return { event_type: 'anomaly', strength_score: strength, direction, trigger_by: trigger, meta };
}

/** Looks whether the sample of twelve ago was a low or a high, and how price and flow went since the one before. */
function divergences(state: EventState, sample: Sample, lag: number): MarketEvent[] {
  const { samples } = state;
  samples.push(sample);
  state.count += 1;
  if (samples.length > PIVOT_SPAN) samples.shift();
  if (samples.length < PIVOT_SPAN) return [];
  const events: MarketEvent[] = [];
  for (const side of ['low', 'high'] as const) {
    if (!isPivot(samples, side === 'low' ? 1 : -1)) continue;
    const pivot: Pivot = { ...samples[PIVOT_SIDE]!, at: state.count - PIVOT_SIDE };
    const before = state[side];
    if (before !== null && pivot.at - before.at < PIVOT_APART) continue;
    state[side] = pivot;
    const event = before === null ? null : divergence(side, before, pivot, state.count, lag);
    if (event !== null) events.push(event);
  }
  return events;
}

/** Of equal prices the first is the pivot. @param sign 1: a low, −1: a high */
function isPivot(samples: readonly Sample[], sign: 1 | -1): boolean {
  const center = samples[PIVOT_SIDE]!.price * sign;
  return samples.every(({ price }, i) => {
    if (i === PIVOT_SIDE) return true;
    return i < PIVOT_SIDE ? price * sign > center : price * sign >= center;
  });
}

type Indicator = 'ofi' | 'cvd';

/** Which divergence two pivots of one side make in an indicator: price and flow went opposite ways. */
function divergenceOf(side: 'low' | 'high', before: Pivot, now: Pivot, by: Indicator): EventType | null {
  const price = Math.sign(now.price - before.price);
  const flow = Math.sign(now[by] - before[by]);
  if (price * flow >= 0) return null;
  if (side === 'low') return price < 0 ? 'bull_div' : 'hidden_bull';
  return price > 0 ? 'bear_div' : 'hidden_bear';
}

function divergence(side: 'low' | 'high', before: Pivot, now: Pivot, count: number, lag: number): MarketEvent | null {
  const agreeing = (['ofi', 'cvd'] as const).filter((by) => divergenceOf(side, before, now, by) !== null);
  if (agreeing.length === 0) return null;
  // Which it is depends on the price alone, so that both say the same.
  const type = divergenceOf(side, before, now, agreeing[0]!)!;
  const score = divergenceScore(before, now, agreeing, count, lag);
  if (score < LEAST_SCORE) return null;
  const told = ({ time, price, ofi, cvd }: Pivot) => ({ ts_ms: time, price, z_ofi: ofi, z_cvd: cvd });
  return {
    event_type: type,
    strength_score: score,
    direction: type === 'bull_div' || type === 'hidden_bull' ? 'bullish' : 'bearish',
    trigger_by: agreeing.length === 2 ? 'both' : agreeing[0]!,
    meta: { before: told(before), now: told(now), apart: now.at - before.at },
  };
}

/** 100 × (0.35 size of z + 0.25 pivots + 0.25 agreement + consistency, at most 0.15), less while it is young or the book is old. */
export function divergenceScore(
  before: Sample & { at: number },
  now: Sample & { at: number },
  agreeing: readonly Indicator[],
  count: number,
  lag: number,
): number {
  const size = Math.max(Math.abs(now.ofi), Math.abs(now.cvd));
  const z = size >= 1.5 ? 1 : size >= 0.7 ? 0.7 : 0.3;
  const moved = Math.abs(now.price - before.price) / before.price;
  const flow = agreeing.reduce((sum, by) => sum + Math.abs(now[by] - before[by]), 0) / agreeing.length;
  const pivot = (Math.min(1, (now.at - before.at) / 24) + Math.min(1, (moved + flow) / 2)) / 2;
  const agree = agreeing.length / 2;
  const consistency = consistencyOf(now.ofi, now.cvd);
  const consist = consistency < 0.3 ? 0 : 0.05 + (0.1 * (consistency - 0.3)) / 0.7;
  const score = 100 * (SCORE_Z * z + SCORE_PIVOT * pivot + SCORE_AGREE * agree + consist);
  return score * (count <= WARM_UP ? WARM_UP_FACTOR : 1) * (lag > LAG_MS ? LAG_FACTOR : 1);
}
