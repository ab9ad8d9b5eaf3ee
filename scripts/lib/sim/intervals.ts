/** Lengths of candles by the names that Binance and Hyperliquid give them, ms. */
export const INTERVALS = {
  '1m': 60_000,
  '3m': 180_000,
  '5m': 300_000,
  '15m': 900_000,
  '30m': 1_800_000,
  '1h': 3_600_000,
  '2h': 7_200_000,
  '4h': 14_400_000,
  '8h': 28_800_000,
  '12h': 43_200_000,
  '1d': 86_400_000,
  '3d': 259_200_000,
  '1w': 604_800_000,
} as const;
export type Interval = keyof typeof INTERVALS;

export function isInterval(name: string): name is Interval {
  return Object.hasOwn(INTERVALS, name);
}

/** OKX's bars by their names: length, and by how much their boundaries lie before those of UTC, ms. A day begins at midnight in Hong Kong. */
export const OKX_BARS: Readonly<Record<string, readonly [length: number, shift: number]>> = {
  '1m': [60_000, 0],
  '3m': [180_000, 0],
  '5m': [300_000, 0],
  '15m': [900_000, 0],
  '30m': [1_800_000, 0],
  '1H': [3_600_000, 0],
  '2H': [7_200_000, 0],
  '4H': [14_400_000, 0],
  '6H': [21_600_000, 28_800_000],
  '12H': [43_200_000, 28_800_000],
  '1D': [86_400_000, 28_800_000],
  '6Hutc': [21_600_000, 0],
  '12Hutc': [43_200_000, 0],
  '1Dutc': [86_400_000, 0],
};
