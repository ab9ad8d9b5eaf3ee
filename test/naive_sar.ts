/** Parabolic SAR and what follows from it, written down once more, candle by candle, without a look at the project's own. */

export interface NaiveSar {
  sar: number;
  position: 'bullish' | 'bearish';
  quadrant: 'Q1' | 'Q2' | 'Q3' | 'Q4';
  sequence: number;
  slope: number | null;
  direction: 'up' | 'down' | null;
  topping: boolean;
}

/** @param candles `[time, open, high, low, close]`, each five minutes after the one before */
export function naiveSar(
  candles: readonly (readonly [number, number, number, number, number])[],
): Map<number, NaiveSar> {
  const out = new Map<number, NaiveSar>();
  const sars: number[] = [];
  const closes: number[] = [];
  let [up, extreme, factor, sequence] = [true, 0, 0.02, 1];
  candles.forEach(([time, open, high, low, close], i) => {
    let sar: number;
    if (i === 0) {
      up = close > open;
      sar = up ? low : high;
      extreme = up ? high : low;
    } else {
      sar = sars[i - 1]! + factor * (extreme - sars[i - 1]!);
      const before = candles.slice(Math.max(i - 2, 0), i);
      for (const [, , h, l] of before) sar = up ? Math.min(sar, l) : Math.max(sar, h);
      sequence += 1;
      const broken = up ? low < sar : high > sar;
      if (broken) {
        sar = extreme;
        up = !up;
        extreme = up ? high : low;
        factor = 0.02;
        sequence = 1;
      } else if (up ? high > extreme : low < extreme) {
        extreme = up ? high : low;
        factor = Math.min(factor + 0.02, 0.2);
      }
    }
    sars.push(sar);
    closes.push(close);
    const [s, c] = [sars.slice(-10), closes.slice(-10)];
    let same = 0;
    for (let k = 1; k < s.length; k += 1) if ((s[k]! - s[k - 1]!) * (c[k]! - c[k - 1]!) > 0) same += 1;
    const slope = s.length < 2 ? null : (up ? 1 : -1) * (same / (s.length - 1));
    const rise = (s.at(-1)! - s[0]!) / s.length;
    const direction = s.length < 2 ? null : rise > 0 ? 'up' : 'down';
    const quadrant = up ? (close > sar ? 'Q1' : 'Q2') : close < sar ? 'Q3' : 'Q4';
    const topping = up && direction === 'down';
    out.set(time, { sar, position: up ? 'bullish' : 'bearish', quadrant, sequence, slope, direction, topping });
  });
  return out;
}
