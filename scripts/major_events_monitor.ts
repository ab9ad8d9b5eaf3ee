const USAGE = `
major_events_monitor.ts: judges each minute of the desk's series by the five rules of major events, writes what happens, and has people told of it.

Usage:   npx tsx scripts/major_events_monitor.ts [--once]
Example: tail -F data/major_events/major_events.jsonl
         npx tsx scripts/major_events_monitor.ts --stdin < readings.ndjson

Flags:
  --once    judges what is due, tells what is not told, and ends: exit 1 when something could not be done
  --stdin   reads {"minute","signal_2h_count","total_change","liquidation_1h","price","anchor":{"loss","gte_120"}} (ms; absent: null), writes events

It reads what escape_signal_calc.ts, coin_price_tracker.ts, unified_data_collector.ts, sar_slope_collector.ts and, where the owner has a key,
anchor_data_collector.ts write. A series that is more than 30 minutes behind the others is not waited for: the rules that need it are blind, which
DATA/state/major_events.json says. Limits of the rules: DATA/state/major_events_limits.json, such as {"strong_top_count":10}, read at start.
Events are told through monitor.ts, and again until it has taken them, for 24 hours.

Environment: MARKETPRISM_API_TOKEN (unset: events are written and nobody is told), MONITOR_HTTP_PORT (8082), MARKETPRISM_LANG (en, zh),
MARKETPRISM_DATA_DIR, LOG_LEVEL.
`;

import { join } from 'node:path';
import { z } from 'zod';
import { flags, OperatorError, runAsScript, UsageError } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import {
  blindOf,
  EVENTS,
  FRESH_STATE,
  MAJOR_EVENT,
  MAJOR_LIMITS,
  type MajorEvent,
  type MajorLimits,
  MINUTE_MS,
  READING,
  type Reading,
  RULE_STATE,
  step,
} from './lib/desk/major_events.ts';
import {
  Gate,
  headOf,
  INPUT_NAMES,
  inputOf,
  LACKS,
  lackOf,
  readingsOf,
  readWatermarks,
  WAITING,
  type Watermarks,
} from './lib/desk/major_inputs.ts';
import { tellAll } from './lib/desk/monitor_client.ts';
import { type DeskContext, type DeskWork, runDesk } from './lib/desk/service.ts';
import { transformStdin } from './lib/desk/stdin.ts';
import { readJson, writeJsonAtomic } from './lib/files.ts';
import { JsonlWriter, objectsOfAll } from './lib/jsonl.ts';
import { type Lock, takeLock } from './lib/lock.ts';

/** Below the data directory. */
const EVENTS_FILE = 'major_events/major_events.jsonl';
const STATE_FILE = 'state/major_events.json';
const LIMITS_FILE = 'state/major_events_limits.json';
/** Minutes that are read and judged at once: a day that was missed is six looks at the files. */
const BATCH_MINUTES = 240;
/** The state is written when it changes, and at least so often, so that its times tell that the script lives. */
const SAVE_MS = MINUTE_MS;

const time = z.number().nullable();
/** `data/state/major_events.json`; all times in ms since the epoch. */
const STATE = z.object({
  /** The last minute that was judged: how far the data are. */
  data_time: time,
  last_run: time,
  /** When last all was done that could be, and told. */
  last_success: time,
  error: z.string().nullable(),
  /** What the last minute could not be judged by, since which minute, and which events that leaves out. */
  blind: z.array(
    z.object({
      input: z.enum(INPUT_NAMES),
      events: z.array(z.enum(EVENTS)),
      since: z.number(),
      why: z.enum(LACKS),
    }),
  ),
  /** The first minute that was to be judged. */
  begun: time,
  waiting: WAITING,
  rules: RULE_STATE,
  /** Events that may not be in the file yet, and those of which people were not told. */
  unwritten: z.array(MAJOR_EVENT),
  untold: z.array(MAJOR_EVENT),
});
type State = z.infer<typeof STATE>;

const FRESH: State = {
  ...{ data_time: null, last_run: null, last_success: null, error: null, blind: [], begun: null, waiting: {} },
  ...{ rules: FRESH_STATE, unwritten: [], untold: [] },
};

/**
 * The limits of the rules, as the operator set them.
 * @throws UsageError naming the file and the member that is wrong
 */
export function readMajorLimits(dataDir: string): MajorLimits {
  const path = join(dataDir, LIMITS_FILE);
  const parsed = MAJOR_LIMITS.safeParse(content(path, UsageError) ?? {});
  if (parsed.success) return parsed.data;
  throw new UsageError(`${path}: ${firstFault(parsed.error)}: mend or remove it`);
}

export class MajorEventsMonitor implements DeskWork {
  private saved = '';
  private savedAt = Number.NEGATIVE_INFINITY;
  /** Records of others that were told as not sound. */
  private readonly told = new Set<string>();

  private constructor(
    private readonly context: DeskContext,
    private readonly limits: MajorLimits,
    private readonly lock: Lock,
    private readonly writer: JsonlWriter,
    /** Ids of the events that are in the file. */
    private readonly written: Set<string>,
    readonly state: State,
  ) {}

  /** @throws OperatorError when another process has the file, or the state cannot be read; UsageError for wrong limits */
  static async open(context: DeskContext): Promise<MajorEventsMonitor> {
    const { config, log } = context;
    const { dataDir, apiToken } = config;
    const limits = readMajorLimits(dataDir);
    const lock = await takeLock(dataDir, 'major events');
    try {
      const path = join(dataDir, STATE_FILE);
      const kept = STATE.safeParse(content(path, OperatorError) ?? FRESH);
      if (!kept.success) throw new OperatorError(`${path}: ${firstFault(kept.error)}: mend or remove it`);
      const state = structuredClone(kept.data);
      // Opened first: what a killed run left half-written is no line.
      const writer = new JsonlWriter(join(dataDir, EVENTS_FILE), log);
      const written = await eventsOf(join(dataDir, EVENTS_FILE));
      adopt(state, written);
      if (apiToken === undefined)
        log.warn({ event: 'no_token' }, 'MARKETPRISM_API_TOKEN is not set: events are written, and nobody is told');
      return new MajorEventsMonitor(context, limits, lock, writer, new Set(written.keys()), state);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  async turn(stop: AbortSignal): Promise<string[]> {
    const { state } = this;
    const faults: string[] = [];
    try {
      this.write();
      await this.judge(stop);
    } catch (error) {
      faults.push((error as Error).message);
    }
    faults.push(...(await this.tell(stop)));
    state.last_run = this.context.clock();
    if (faults.length === 0 && !stop.aborted) state.last_success = state.last_run;
    state.error = faults[0] ?? null;
    this.save();
    return faults;
  }

  async close(): Promise<void> {
    this.writer.close();
    await this.lock.release();
  }

  /** Judges all minutes that can be, in their order. */
  private async judge(stop: AbortSignal): Promise<void> {
    const { state, context } = this;
    const { config, log, clock } = context;
    const marks = readWatermarks(config.dataDir);
    state.begun ??= headOf(marks);
    if (state.begun === null) return;
    const gate = new Gate(marks, state.begun, state.waiting, clock());
    const bad = (name: string, slot: number, reason: string) => {
      if (this.told.has(`${name} ${slot}`)) return;
      this.told.add(`${name} ${slot}`);
      log.warn({ event: 'bad_record', series: name, slot, reason });
    };
    while (!stop.aborted) {
      const from = state.data_time === null ? state.begun : state.data_time + MINUTE_MS;
      let to = from - MINUTE_MS;
      while (to < from + (BATCH_MINUTES - 1) * MINUTE_MS && gate.waitsFor(to + MINUTE_MS).length === 0) to += MINUTE_MS;
      if (to < from) return;
      this.take(await readingsOf(config.dataDir, from, to, bad), marks);
    }
  }

  /** Events are in the state before they are in the file, and stay there until they are: killed in between, they are written once all the same. */
  private take(readings: readonly Reading[], marks: Watermarks): void {
    const { state } = this;
    let { rules, blind } = state;
    const fresh: MajorEvent[] = [];
    for (const reading of readings) {
      const judged = step(rules, reading, this.limits);
      rules = judged.state;
      blind = blindNow(blind, reading, marks);
      fresh.push(...judged.events.filter(({ id }) => !this.written.has(id)));
    }
    Object.assign(state, { rules, blind, data_time: rules.minute });
    if (fresh.length === 0) return;
    state.unwritten.push(...fresh);
    state.untold.push(...fresh);
    this.save();
    this.write();
  }

  private write(): void {
    const { state, written } = this;
    if (state.unwritten.length === 0) return;
    const lines = state.unwritten.filter(({ id }) => !written.has(id));
    this.writer.append(lines);
    for (const { id } of lines) written.add(id);
    for (const { id, text } of lines) this.context.log.warn({ event: 'major_event', id, text });
    state.unwritten = [];
    this.save();
  }

  /** Has people told, in the order of the events. @returns why somebody is not told yet */
  private tell(stop: AbortSignal): Promise<string[]> {
    const { state, context } = this;
    const telling = {
      untold: state.untold,
      id: ({ id }: MajorEvent) => id,
      at: ({ minute }: MajorEvent) => minute,
      message: (event: MajorEvent) => messageOf(event, context.config.language),
      isWritten: ({ id }: MajorEvent) => !state.unwritten.some((each) => each.id === id),
      save: () => this.save(),
    };
    return tellAll(context, telling, stop);
  }

  private save(): void {
    const { state, context } = this;
    const text = JSON.stringify({ ...state, last_run: null, last_success: null });
    const now = context.clock();
    if (text === this.saved && Math.abs(now - this.savedAt) < SAVE_MS) return;
    writeJsonAtomic(join(context.config.dataDir, STATE_FILE), state);
    [this.saved, this.savedAt] = [text, now];
  }
}

/** Events that the file has and the state does not, as where an older state was put back: people may not have been told of them. */
function adopt(state: State, written: ReadonlyMap<string, MajorEvent>): void {
  const known = new Set([...state.unwritten, ...state.untold].map(({ id }) => id));
  const { data_time } = state;
  if (data_time === null) return;
  for (const [id, event] of written) if (event.minute > data_time && !known.has(id)) state.untold.push(event);
}

async function eventsOf(file: string): Promise<Map<string, MajorEvent>> {
  const events = new Map<string, MajorEvent>();
  for await (const line of objectsOfAll(file)) {
    const event = 'value' in line ? MAJOR_EVENT.safeParse(line.value) : null;
    if (event?.success) events.set(event.data.id, event.data);
  }
  return events;
}

function blindNow(before: State['blind'], reading: Reading, marks: Watermarks): State['blind'] {
  return [...blindOf(reading)].map(([figure, events]) => {
    const input = inputOf(figure);
    const why = lackOf(input, marks, reading.minute);
    const since = before.find((each) => each.input === input)?.since ?? reading.minute;
    return { input, events, since, why };
  });
}

function messageOf({ id, event, name, name_zh, time, severity, text, text_zh }: MajorEvent, language: 'en' | 'zh') {
  const isZh = language === 'zh';
  return {
    id: `major_events/${id}`,
    title: `${event} ${isZh ? name_zh : name}`,
    text: `${isZh ? text_zh : text}\n${time} ${isZh ? '北京时间' : 'Beijing time'}`,
    severity,
  };
}

/** @throws `Fault` when the file is there and is no JSON */
function content(path: string, Fault: new (message: string) => OperatorError): unknown {
  try {
    return readJson(path);
  } catch (error) {
    throw new Fault(`${path}: ${(error as Error).message}: mend or remove it`);
  }
}

function firstFault(error: z.ZodError): string {
  const { path, message } = error.issues[0]!;
  return [path.join('.'), message].filter(Boolean).join(': ');
}

async function main(): Promise<number> {
  const options = flags(USAGE, {
    once: { type: 'boolean', default: false },
    stdin: { type: 'boolean', default: false },
  });
  if (options.stdin) {
    const limits = readMajorLimits(loadConfig().dataDir);
    let rules = FRESH_STATE;
    return transformStdin(READING, (reading) => {
      const { state, events } = step(rules, reading, limits);
      rules = state;
      return events;
    });
  }
  return runDesk('major_events_monitor', options.once, (context) => MajorEventsMonitor.open(context));
}

runAsScript(import.meta.url, main);
