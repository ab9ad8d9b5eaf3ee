/** How the desk tells people something: through monitor.ts, which knows whom to tell, and tells nobody twice of the same id. */
import fetch from 'node-fetch';
import { z } from 'zod';
import type { Severity } from '../checks/check.ts';
import type { Config } from '../config.ts';

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

function read(text: string): z.infer<typeof TOLD> {
  try {
    return TOLD.parse(JSON.parse(text));
  } catch {
    throw new NotToldYet('what answers on the port of the monitor is no monitor');
  }
}
