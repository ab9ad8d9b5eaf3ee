/**
 * The clock for durations, ages and deadlines within a process. The wall clock may be set by minutes at any moment; it is only for times
 * that are written down, shown, or compared with those of others.
 */

/** Milliseconds that only go forward, with fractions: since the epoch, as long as nobody sets the wall clock. */
export function steadyNow(): number {
  return performance.timeOrigin + performance.now();
}

/** A moment of the steady clock as the wall clock, as it is set now, would show it: ms since the epoch. */
export function wallTime(steady: number): number {
  return Math.round(Date.now() + steady - steadyNow());
}

/** The moment of the steady clock when the wall clock, as it is set now, shows `wall`, ms since the epoch. */
export function steadyTime(wall: number): number {
  return steadyNow() + wall - Date.now();
}
