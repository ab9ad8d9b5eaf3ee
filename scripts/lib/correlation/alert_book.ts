/**
 * What stands, what is written and who is told, over restarts: an event is in the state before it is in the file, and in the file before
 * anybody is told, so that a process that dies anywhere neither loses nor doubles one.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { tellAll } from '../desk/monitor_client.ts';
import type { DeskContext } from '../desk/service.ts';
import { readJson, writeJsonAtomic } from '../files.ts';
import { JsonlWriter, objectsOfAll } from '../jsonl.ts';
import { CORRELATION_ALERT, type CorrelationAlert, messageOf, replay, STANDING, type Standing } from './alerts.ts';

/** Below the data directory. */
export const ALERTS_FILE = 'correlation/correlation_alerts.jsonl';
export const STATE_FILE = 'state/correlation_alert.json';

const time = z.number().nullable();
/** `data/state/correlation_alert.json`; times in ms since the epoch. */
const STATE = z.object({
  /** Start of the newest candle that was judged: how far the data are. */
  data_time: time,
  last_run: time,
  /** When last all was done that could be, and told. */
  last_success: time,
  error: z.string().nullable(),
  /** Figures of the last round. */
  round: z.looseObject({}).nullable(),
  /** Anomalies, by coin. */
  standing: STANDING,
  /** Events that may not be in the file yet, and those of which people were not told, with the time of it. */
  unwritten: z.array(CORRELATION_ALERT),
  untold: z.array(z.object({ at: z.number(), alert: CORRELATION_ALERT })),
});
type State = z.infer<typeof STATE>;

const FRESH: State = {
  ...{ data_time: null, last_run: null, last_success: null, error: null, round: null },
  ...{ standing: {}, unwritten: [], untold: [] },
};

export class AlertBook {
  private constructor(
    private readonly context: DeskContext,
    private readonly writer: JsonlWriter,
    /** Ids of the events that are in the file. */
    private readonly written: Set<string>,
    private readonly state: State,
  ) {}

  /** The lock is the caller's. @throws OperatorError when what is kept cannot be read */
  static async open(context: DeskContext): Promise<AlertBook> {
    const { config, log, clock } = context;
    const state = stateOf(join(config.dataDir, STATE_FILE));
    // Opened first: what a killed run left half-written is no line.
    const path = join(config.dataDir, ALERTS_FILE);
    const writer = new JsonlWriter(path, log);
    const written = await alertsOf(path);
    adopt(state, written, clock());
    if (config.apiToken === undefined)
      log.warn({ event: 'no_token' }, 'MARKETPRISM_API_TOKEN is not set: anomalies are written, and nobody is told');
    return new AlertBook(context, writer, new Set(written.map(({ id }) => id)), state);
  }

  get standing(): Standing {
    return this.state.standing;
  }

  /** What stands after a round, and what happened in it. @throws when it cannot be written */
  take(standing: Standing, events: readonly CorrelationAlert[]): void {
    const { state, context } = this;
    const fresh = events.filter(({ id }) => !this.written.has(id));
    state.standing = standing;
    state.unwritten.push(...fresh);
    state.untold.push(...fresh.map((alert) => ({ at: context.clock(), alert })));
    if (fresh.length > 0) this.save();
    this.write();
  }

  /** A round is over. */
  ran(figures: { data_time: number | null }, faults: readonly string[]): void {
    const { state, context } = this;
    state.last_run = context.clock();
    state.data_time = figures.data_time ?? state.data_time;
    state.round = { ...figures };
    state.error = faults[0] ?? null;
    if (faults.length === 0) state.last_success = state.last_run;
    this.save();
  }

  /** A round could not be done. */
  failed(reason: string): void {
    this.state.last_run = this.context.clock();
    this.state.error = reason;
    this.save();
  }

  /** Has people told, in the order of the events. @returns why somebody is not told yet */
  tell(stop: AbortSignal): Promise<string[]> {
    const { state, context } = this;
    const telling = {
      untold: state.untold,
      id: ({ alert }: (typeof state.untold)[number]) => alert.id,
      at: ({ at }: (typeof state.untold)[number]) => at,
      message: ({ alert }: (typeof state.untold)[number]) => messageOf(alert, context.config.language),
      isWritten: ({ alert }: (typeof state.untold)[number]) => !state.unwritten.some(({ id }) => id === alert.id),
      save: () => this.save(),
    };
    return tellAll(context, telling, stop);
  }

  close(): void {
    this.writer.close();
  }

  private write(): void {
    const { state, written, context } = this;
    if (state.unwritten.length === 0) return;
    const lines = state.unwritten.filter(({ id }) => !written.has(id));
    this.writer.append(lines);
    for (const { id, event, coin, long, short } of lines) {
      written.add(id);
      context.log.warn({ event: 'correlation_alert', id, what: event, coin, long, short });
    }
    state.unwritten = [];
    this.save();
  }

  private save(): void {
    writeJsonAtomic(join(this.context.config.dataDir, STATE_FILE), this.state);
  }
}

function stateOf(path: string): State {
  let content: unknown;
  try {
    content = readJson(path) ?? FRESH;
  } catch (error) {
    throw new OperatorError(`${path}: ${(error as Error).message}: mend or remove it`);
  }
  const kept = STATE.safeParse(content);
  if (kept.success) return structuredClone(kept.data);
  const { path: member, message } = kept.error.issues[0]!;
  throw new OperatorError(`${path}: ${member.join('.')}: ${message}: mend or remove it`);
}

async function alertsOf(file: string): Promise<CorrelationAlert[]> {
  const alerts: CorrelationAlert[] = [];
  for await (const line of objectsOfAll(file)) {
    const alert = 'value' in line ? CORRELATION_ALERT.safeParse(line.value) : null;
    if (alert?.success) alerts.push(alert.data);
  }
  return alerts;
}

/**
 * Events that the file has and the state does not, as where an older state was put back: they happened, and people may not have been told.
 * Where there is no state at all, what stands is read from the file, and nobody is told of it again.
 */
function adopt(state: State, written: readonly CorrelationAlert[], now: number): void {
  const known = new Set([...state.unwritten, ...state.untold.map(({ alert }) => alert)].map(({ id }) => id));
  for (const alert of written) {
    if (known.has(alert.id) || alert.timestamp <= (state.data_time ?? 0)) continue;
    state.standing = replay(state.standing, alert);
    if (state.data_time !== null) state.untold.push({ at: now, alert });
  }
}
