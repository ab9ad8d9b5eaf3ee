/** Order flow and volume delta as one score, and the signal that comes of it. */
import { clamp } from './statistics.ts';

export const OFI_SHARE = 0.6;
export const CVD_SHARE = 0.4;
const OFI_LIMIT = 5;
const CVD_LIMIT = 4;
/** A book that is older than this, ms, tells nothing together with the trade: the stronger factor counts alone. */
export const LAG_MS = 300;

/** Scores from which a signal begins, and below which it ends. */
const ENTER = 1.2;
const ENTER_STRONG = 2;
const EXIT = 0.8;
const LEAST_CONSISTENCY = 0.2;
const STRONG_CONSISTENCY = 0.6;
/** So many scores must have been before the first signal. */
const WARM_UP = 20;
/** From one signal to the next, ms of event time. Ends are not delayed. */
const COOLDOWN_MS = 500;
/** Of the logistic curve that makes a probability of a score; 1: as it is, nothing was fitted. */
export const CALIBRATION_K = 1;

export const SIGNALS = ['neutral', 'buy', 'strong_buy', 'sell', 'strong_sell'] as const;
export type Signal = (typeof SIGNALS)[number];

/** Plain data. */
export interface FusionState {
  scores: number;
  signal: Signal;
  /** When the signal last changed to one that is not neutral, ms. */
  since: number | null;
}

export function freshFusion(): FusionState {
  return { scores: 0, signal: 'neutral', since: null };
}

export interface FusionFigures {
  score: number | null;
  score_raw: number | null;
  proba: number | null;
  consistency: number | null;
  dispersion: number | null;
  sign_agree: boolean | null;
  signal: Signal | null;
  comp_ofi: number | null;
  comp_cvd: number | null;
}

const UNKNOWN: FusionFigures = {
  ...{ score: null, score_raw: null, proba: null, consistency: null, dispersion: null, sign_agree: null, signal: null },
  ...{ comp_ofi: null, comp_cvd: null },
};

/**
 * score_raw = 0.6·z_ofi + 0.4·z_cvd, of which `score` has only the stronger part where the book is older than 0.3 s. consistency: 0 where the signs
 * differ, else the smaller |z| over the larger. All null while one of both z is.
 * @param time event time of the trade, ms @param lag how much older the book is, ms; null: there is none
 */
export function takeFusion(
  state: FusionState,
  zOfi: number | null,
  zCvd: number | null,
  time: number,
  lag: number | null,
): FusionFigures {
  if (zOfi === null || zCvd === null || lag === null) return UNKNOWN;
  const compOfi = OFI_SHARE * clamp(zOfi, OFI_LIMIT);
  const compCvd = CVD_SHARE * clamp(zCvd, CVD_LIMIT);
  const raw = compOfi + compCvd;
  const stronger = Math.abs(compOfi) >= Math.abs(compCvd) ? compOfi : compCvd;
  const score = lag > LAG_MS ? stronger : raw;
  const consistency = consistencyOf(zOfi, zCvd);
  state.scores += 1;
  return {
    score,
    score_raw: raw,
    proba: 1 / (1 + Math.exp(-CALIBRATION_K * score)),
    consistency,
    dispersion: Math.abs(zOfi - zCvd),
    sign_agree: zOfi >= 0 === zCvd >= 0,
    signal: state.scores <= WARM_UP ? null : follow(state, score, consistency, time),
    comp_ofi: compOfi,
    comp_cvd: compCvd,
  };
}

export function consistencyOf(zOfi: number, zCvd: number): number {
  if (zOfi * zCvd <= 0) return 0;
  const [one, other] = [Math.abs(zOfi), Math.abs(zCvd)];
  return Math.min(one, other) / Math.max(one, other);
}

/** A signal stays until the score falls below the exit, turns, or becomes strong; it does not come and go with each trade. */
function follow(state: FusionState, score: number, consistency: number, time: number): Signal {
  const entered = enteredBy(score, consistency);
  const isHeld = state.signal !== 'neutral' && Math.abs(score) >= EXIT && isBuy(state.signal) === score > 0;
  // Strong stays strong as long as it stays at all.
  if (isHeld && (!entered.startsWith('strong') || state.signal.startsWith('strong'))) return state.signal;
  const isCool = state.since === null || time >= state.since + COOLDOWN_MS;
  const next = isCool ? entered : isHeld ? state.signal : 'neutral';
  if (next !== state.signal && next !== 'neutral') state.since = time;
  state.signal = next;
  return next;
}

function isBuy(signal: Signal): boolean {
  return signal === 'buy' || signal === 'strong_buy';
}

function enteredBy(score: number, consistency: number): Signal {
  const [size, isUp] = [Math.abs(score), score > 0];
  if (size >= ENTER_STRONG && consistency >= STRONG_CONSISTENCY) return isUp ? 'strong_buy' : 'strong_sell';
  if (size >= ENTER && consistency >= LEAST_CONSISTENCY) return isUp ? 'buy' : 'sell';
  return 'neutral';
}
