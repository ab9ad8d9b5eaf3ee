/** Figures and times as people read them. Nothing is computed here but how it looks. */
import { settings } from './settings.ts';

/** What is not known. */
export const UNKNOWN = '–';
const SECOND_MS = 1000;

const numbers = new Map<string, Intl.NumberFormat>();
function numberFormat(options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = JSON.stringify(options);
  let made = numbers.get(key);
  if (made === undefined) numbers.set(key, (made = new Intl.NumberFormat('en-US', options)));
  return made;
}

/** 1234.5 is 1,234.50 with two digits after the point. */
export function fixed(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  return numberFormat({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** A count, or a figure of unknown size: whole numbers as they are, others with up to five digits that count. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  if (Number.isInteger(value)) return numberFormat({ maximumFractionDigits: 0 }).format(value);
  return numberFormat({ maximumSignificantDigits: Math.abs(value) >= 10_000 ? 7 : 5 }).format(value);
}

/** All digits that a price has. */
export function exact(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  return numberFormat({ maximumFractionDigits: 18 }).format(value);
}

/** Text of a decimal with its thousands apart; no digit is lost. */
export function decimal(text: string | null | undefined): string {
  if (text === null || text === undefined || text === '') return UNKNOWN;
  const [whole = '', fraction] = text.split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ',');
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

/** A share of 1 as percent. */
export function percent(share: number | null | undefined, digits = 2): string {
  return share === null || share === undefined ? UNKNOWN : `${fixed(share * 100, digits)} %`;
}

export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined) return UNKNOWN;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [value, unit] = [count, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${fixed(value, unit === 0 ? 0 : 1)} ${units[unit]}`;
}

/** A length of time. */
export function span(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return UNKNOWN;
  const size = Math.abs(ms);
  if (size < SECOND_MS) return `${Math.round(ms)} ms`;
  if (size < 120 * SECOND_MS) return `${fixed(ms / SECOND_MS, size < 10 * SECOND_MS ? 1 : 0)} s`;
  if (size < 7_200_000) return `${fixed(ms / 60_000, 0)} min`;
  if (size < 172_800_000) return `${fixed(ms / 3_600_000, 1)} h`;
  return `${fixed(ms / 86_400_000, 1)} d`;
}

export const BEIJING = 'Asia/Shanghai';
/** Of the chosen zone; undefined: that of the machine. */
export function timeZone(): string | undefined {
  return settings().zone === 'beijing' ? BEIJING : undefined;
}

export type TimeDetail = 'minute' | 'second' | 'millisecond';
const times = new Map<string, Intl.DateTimeFormat>();

/** `2026-11-30 19:05:00` in the chosen zone, or in another one. */
export function time(ms: number | null | undefined, detail: TimeDetail = 'second', zone = timeZone()): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return UNKNOWN;
  const key = `${detail} ${zone}`;
  let format = times.get(key);
  if (format === undefined) {
    const parts: Intl.DateTimeFormatOptions = {
      ...{ timeZone: zone, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit' },
      ...{ hour: '2-digit', minute: '2-digit' },
      ...(detail === 'minute' ? {} : { second: '2-digit' }),
      ...(detail === 'millisecond' ? { fractionalSecondDigits: 3 } : {}),
    };
    // The Swedish way to write a time is the one with the year first and no comma.
    times.set(key, (format = new Intl.DateTimeFormat('sv-SE', parts)));
  }
  return format.format(ms).replace(',', '.');
}

/** The same moment in the two zones, for whoever points at a time. */
export function bothTimes(ms: number): string {
  // An absent zone would be the chosen one.
  const { timeZone: own } = Intl.DateTimeFormat().resolvedOptions();
  return `${time(ms, 'second', own)} local · ${time(ms, 'second', BEIJING)} 北京`;
}
