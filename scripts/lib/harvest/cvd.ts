/** Cumulative volume delta: what takers bought, less what they sold; and how unusual each trade was. */
import { decimalNumber } from '../decimal.ts';
import { clamp, MAD_TO_SIGMA, medianDeviation, pushTo } from './statistics.ts';

/** |delta| of so many trades before tell what is usual. */
const WINDOW = 150;
const LEAST = 20;
const FAST_HALF_LIFE_MS = 60_000;
const SLOW_HALF_LIFE_MS = 600_000;
/** Trades a second from which the fast average has its whole share, and a market counts as active. */
export const ACTIVE_TPS = 1.5;
const FAST_SHARE = 0.3;
const FLOOR_FACTOR = 1.7;
const LEAST_TPS = 0.2;
const FLOOR_EXPONENT = 0.7;
const LEAST_SCALE = 1e-9;
/** A time without trades after which the first one, and the first two, have no z, ms. */
const PAUSE_MS = 4000;
const LONG_PAUSE_MS = 5000;
/** z for the fusion goes no further than this. Events are judged by `z_raw`. */
const Z_LIMIT = 2;
const Z_LIMITS: Readonly<Record<string, number>> = { BTC: 1.9, ETH: 2.3 };

/** Seconds that trades are counted in. */
export const TPS_SECONDS = 60;

/** Kept between two trades; plain data. `cvd` in base units × 10^18, exact, as text. */
export interface CvdState {
  cvd: string;
  window: number[];
  fast: number | null;
  slow: number;
  /** Trades by second, of the last minute: [second, trades]. */
  seconds: [number, number][];
  /** The first trade's time, and the newest one's, ms. */
  since: number | null;
  last: number | null;
  /** Trades that are still to have no z. */
  mute: number;
}

export function freshCvd(): CvdState {
  return { cvd: '0', window: [], fast: null, slow: 0, seconds: [], since: null, last: null, mute: 0 };
}

export interface CvdFigures {
  /** Decimal text: base units, all digits. */
  cvd: string;
  delta: string;
  /** Of trades that came late, and are in `cvd` from here on. */
  late_delta: string;
  z_raw: number | null;
  z_cvd: number | null;
  scale: number | null;
  sigma_floor: number | null;
  floor_used: boolean | null;
  /** Trades a second over the last minute; null before there was a minute. */
  tps: number | null;
}

export interface CvdTrade {
  time: number;
  /** Base units, decimal text. */
  quantity: string;
  /** The buyer is the maker: the taker sold. */
  is_maker: boolean;
  /** Trades that came after later ones. */
  late: readonly { quantity: string; is_maker: boolean }[];
  /** Trades before this one are missing. */
  afterGap: boolean;
  base: string;
}

/**
 * Takes a trade in, and what came late. delta is +quantity where the taker bought; z is delta over a scale of the trades before it only:
 * the larger of a mix of two averages of |delta| (half-lives of a minute and ten) and a floor by their median absolute deviation.
 */
export function takeCvd(state: CvdState, trade: CvdTrade): CvdFigures {
  const delta = signed(trade);
  const late = trade.late.reduce((sum, each) => sum + signed(each), 0n);
  const cvd = BigInt(state.cvd) + late + delta;
  const usual = usualOf(state);
  const isMuted = muted(state, trade);
  const size = decimalNumber(trade.quantity);
  const z = usual === null || isMuted ? null : (trade.is_maker ? -size : size) / usual.scale;
  follow(state, trade.time, size);
  state.cvd = cvd.toString();
  return {
    cvd: scaledText(cvd),
    delta: scaledText(delta),
    late_delta: scaledText(late),
    z_raw: z,
    z_cvd: z === null ? null : clamp(z, Z_LIMITS[trade.base] ?? Z_LIMIT),
    scale: usual?.scale ?? null,
    sigma_floor: usual?.floor ?? null,
    floor_used: usual === null ? null : usual.floor > usual.mix,
    tps: tpsOf(state),
  };
}

/** Trades a second over the last minute; null before there was one. */
export function tpsOf({ seconds, since, last }: CvdState): number | null {
  if (since === null || last === null || last - since < TPS_SECONDS * 1000) return null;
  return seconds.reduce((sum, [, count]) => sum + count, 0) / TPS_SECONDS;
}

function usualOf(state: CvdState): { scale: number; mix: number; floor: number } | null {
  const { window, fast, slow, seconds } = state;
  if (window.length < LEAST || fast === null) return null;
  // Before there was a minute, the trades of the minute are those that there are.
  const tps = seconds.reduce((sum, [, count]) => sum + count, 0) / TPS_SECONDS;
  const share = FAST_SHARE * Math.min(1, tps / ACTIVE_TPS);
  const mix = share * fast + (1 - share) * slow;
  const thin = (ACTIVE_TPS / Math.max(tps, LEAST_TPS)) ** FLOOR_EXPONENT;
  const floor = MAD_TO_SIGMA * medianDeviation(window) * FLOOR_FACTOR * Math.max(1, thin);
  return { scale: Math.max(mix, floor, LEAST_SCALE), mix, floor };
}

function muted(state: CvdState, { time, afterGap }: CvdTrade): boolean {
  const pause = state.last === null ? 0 : time - state.last;
  if (pause > LONG_PAUSE_MS || afterGap) state.mute = 2;
  else if (pause > PAUSE_MS) state.mute = Math.max(state.mute, 1);
  if (state.mute === 0) return false;
  state.mute -= 1;
  return true;
}

function follow(state: CvdState, time: number, size: number): void {
  const elapsed = state.last === null ? 0 : Math.max(time - state.last, 0);
  const weight = (halfLife: number) => 1 - 2 ** (-elapsed / halfLife);
  state.fast = state.fast === null ? size : state.fast + weight(FAST_HALF_LIFE_MS) * (size - state.fast);
  state.slow = state.window.length === 0 ? size : state.slow + weight(SLOW_HALF_LIFE_MS) * (size - state.slow);
  pushTo(state.window, size, WINDOW);
  state.since ??= time;
  state.last = Math.max(state.last ?? time, time);
  const second = Math.floor(state.last / 1000);
  const newest = state.seconds.at(-1);
  if (newest?.[0] === second) newest[1] += 1;
  else state.seconds.push([second, 1]);
  while (state.seconds[0]![0] <= second - TPS_SECONDS) state.seconds.shift();
}

const PLACES = 18;

function signed({ quantity, is_maker }: { quantity: string; is_maker: boolean }): bigint {
  const point = quantity.indexOf('.');
  const fraction = point < 0 ? '' : quantity.slice(point + 1);
  const digits = BigInt((point < 0 ? quantity : quantity.slice(0, point)) + fraction.padEnd(PLACES, '0'));
  return is_maker ? -digits : digits;
}

function scaledText(value: bigint): string {
  const digits = (value < 0n ? -value : value).toString().padStart(PLACES + 1, '0');
  const fraction = digits.slice(-PLACES).replace(/0+$/, '');
  return `${value < 0n ? '-' : ''}${digits.slice(0, -PLACES)}${fraction === '' ? '' : `.${fraction}`}`;
}
