/** When which round is due. */
import { DEPTHS, type Depth } from './checks/round.ts';

const MINUTE_MS = 60_000;

/** Cron patterns in the operator's time zone: at each time only the deepest round that is due. */
export const SCHEDULE: Record<Depth, string> = {
  quick: '0 15,30,45 * * * *',
  full: '0 0 0,1,3-23 * * *',
  deep: '0 0 2 * * *',
};
/** From one round to the next that answers the same questions, ms. */
export const EVERY_MS: Record<Depth, number> = { quick: 15 * MINUTE_MS, full: 60 * MINUTE_MS, deep: 1440 * MINUTE_MS };

/** The round that makes up for those that were missed while no monitor ran; where none ever ran, the deepest. @param last by depth, ms since the epoch */
export function catchUp(last: Partial<Record<Depth, number>>, now: number): Depth {
  return DEPTHS.findLast((depth) => now - (last[depth] ?? 0) > EVERY_MS[depth]) ?? 'quick';
}
