/** How the desk tells people something: through monitor.ts, which knows whom to tell, and tells nobody twice of the same id. */
import fetch from 'node-fetch';
import { z } from 'zod';
import type { Severity } from '../checks/check.ts';
import type { Config } from '../config.ts';
import type { DeskContext } from './service.ts';

export interface DeskEvent {
  /** The same for the same event, however often it is posted. */
  id: string;
  title: string;
  text: string;
  severity: Severity;
}

/** The monitor took no offence at the request, and people may hear of it later. */
export class NotToldYet extends Error {}
/** The monitor will never take this event. */
export class EventRefused extends Error {}

/** An event of which nobody could be told for so long is no news any more, ms. */
const TELL_FOR_MS = 24 * 3_600_000;
/** The monitor tries each receiver three times, 10 s each, before it answers. */
const TIMEOUT_MS = 60_000;

const TOLD = z.object({
  told: z.boolean(),
  failed: z.array(z.object({ name: z.string(), reason: z.string() })).default([]),
});

/**
 * Has people told of an event, or learns that they were told already.
 * @throws NotToldYet when it is to be tried again, EventRefused when that is in vain
 */
export async function postEvent(config: Config, token: string, event: DeskEvent, stop: AbortSignal): Promise<void> {
  const url = `http://127.0.0.1:${config.monitorPort}/api/monitoring/events`;
  let status: number;
  let text: string;
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify(event),
      redirect: 'manual',
      signal: AbortSignal.any([stop, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    status = answer.status;
    text = await answer.text();
  } catch (error) {
    const { code, name } = error as Error & { code?: string };
    throw new NotToldYet(`the monitor does not answer: ${code ?? name}`);
  }
  if (status === 400 || status === 413) throw new EventRefused(`HTTP ${status}: ${text.slice(0, 200)}`);
  if (status !== 200) throw new NotToldYet(`the monitor answers HTTP ${status}`);
  const { told, failed } = read(text);
  if (told) return;
  throw new NotToldYet(
    `the monitor reaches nobody: ${failed.map(({ name, reason }) => `${name}: ${reason}`).join(', ')}`,
  );
}

/** What people are still to be told of. */
export interface Telling<E> {
  /** The oldest first; what was told is taken out. */
  untold: E[];
  /** As its file names it. */
  id(event: E): string;
  /** When it happened, ms. */
  at(event: E): number;
  message(event: E): DeskEvent;
  /** What may not be in the file yet must not be known to people alone. */
  isWritten(event: E): boolean;
  /** Called when people know of the first one. */
  save(): void;
}

/**
 * Has people told, in the order of the events; without a token nobody is.
 * @returns why somebody is not told yet
 */
export async function tellAll<E>(context: DeskContext, telling: Telling<E>, stop: AbortSignal): Promise<string[]> {
  const { config, log, clock } = context;
  const { untold } = telling;
  const isOver = (event: E) => clock() - telling.at(event) > TELL_FOR_MS;
  for (const event of untold.filter(isOver)) {
    const { text } = telling.message(event);
    log.error({ event: 'never_told', id: telling.id(event), text }, 'nobody could be told for 24 hours');
    untold.splice(untold.indexOf(event), 1);
  }
  if (config.apiToken === undefined) return [];
  for (let event = untold[0]; event !== undefined; event = untold[0]) {
    if (stop.aborted || !telling.isWritten(event)) break;
    try {
      await postEvent(config, config.apiToken, telling.message(event), stop);
    } catch (error) {
      if (error instanceof NotToldYet) return [`${untold.length} not told: ${error.message}`];
      if (!(error instanceof EventRefused)) throw error;
      log.error({ event: 'event_refused', id: telling.id(event), reason: error.message });
    }
    untold.shift();
    telling.save();
  }
  return [];
}

function read(text: string): z.infer<typeof TOLD> {
  try {
    return TOLD.parse(JSON.parse(text));
  } catch {
    throw new NotToldYet('what answers on the port of the monitor is no monitor');
  }
}
