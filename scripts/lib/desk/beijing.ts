/** Times as the desk's readers read them: UTC+8, without summer time since 1991. */

const OFFSET_MS = 8 * 3_600_000;
const DAY_MS = 86_400_000;

/** `YYYY-MM-DD HH:MM:SS` in Beijing. @param time ms since the epoch */
export function beijingText(time: number): string {
  return new Date(time + OFFSET_MS).toISOString().slice(0, 19).replace('T', ' ');
}

/** `YYYY-MM-DD` in Beijing. @param time ms since the epoch */
export function beijingDate(time: number): string {
  return beijingText(time).slice(0, 10);
}

/** When the day of Beijing began in which `time` lies; 16:00 UTC. @returns ms since the epoch */
export function beijingDayStart(time: number): number {
  return Math.floor((time + OFFSET_MS) / DAY_MS) * DAY_MS - OFFSET_MS;
}
