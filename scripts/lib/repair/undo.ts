/** Undoing a repair, last step first: exactly what it did, and what cannot be undone is said. */
import { existsSync, renameSync } from 'node:fs';
import { fence } from '../clickhouse.ts';
import { QUERY_PREFIX } from '../replication.ts';
import type { DataType } from '../rows.ts';
import type { Step } from './journal.ts';
import { inWindow, named, type Place, quoted } from './rows.ts';
import type { Session } from './session.ts';

/**
 * Hot first; cold once no copy of what was in hot can be under way.
 * @returns what could not be undone, one line each
 */
export async function undo(session: Session, stop: AbortSignal): Promise<string[]> {
  const { journal, options } = session;
  const { hot, cold } = options;
  const steps = [...journal.steps].reverse().filter((step) => !journal.isUndone(step));
  for (const step of steps) {
    stop.throwIfAborted();
    await undoIn(session, hot, step);
  }
  if (steps.length > 0) {
    await fence(hot.client, QUERY_PREFIX, null, stop);
    await fence(cold.client, QUERY_PREFIX, cold.database, stop);
  }
  const notes: string[] = [];
  for (const step of steps) {
    stop.throwIfAborted();
    await undoIn(session, cold, step);
    const could_not = undoFiles(step);
    journal.add({ op: 'undone', n: step.n, could_not });
    if (could_not !== null) notes.push(could_not);
  }
  return notes;
}

async function undoIn(session: Session, place: Place, step: Step): Promise<void> {
  if (step.op === 'remove' && step.tier === place.tier) await session.putBack(step);
  if (step.op === 'copy' && place.tier === 'cold') {
    const names = session.journal.kept(step.file).trimEnd().split('\n');
    await session.erase(place, step.type, named(step.type, step.window, names));
  }
  for (const { type, where } of broughtBy(step, session.source)) await session.erase(place, type, where);
}

/** @returns what could not be undone, or null */
function undoFiles(step: Step): string | null {
  if (step.op === 'letters')
    return 'the dead letters that were published again stay stored: they are rows that the venues sent';
  if (step.op !== 'aside' || !existsSync(step.to)) return null;
  if (existsSync(step.from)) return `${step.from} is there anew: what was put aside stays at ${step.to}`;
  renameSync(step.to, step.from);
  return null;
}

/** SQL: the rows that came into hot by a step, and from there to cold. */
function broughtBy(step: Step, source: string): { type: DataType; where: string }[] {
  if (step.op === 'publish')
    return [{ type: step.type, where: `${inWindow(step.window)} AND data_source = ${quoted(source)}` }];
  if (step.op !== 'declare') return [];
  return [
    { type: step.type, where: `data_source = ${quoted(`backfill:${step.gap}`)}` },
    // The gap itself, and the row that closed it.
    { type: 'gap', where: `gap_id = ${quoted(step.gap)}` },
  ];
}
