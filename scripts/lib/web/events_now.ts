/** How the rules of major events stand: from the state and the limits that their monitor keeps, and the newest figures that it judges by. */
import { join } from 'node:path';
import { z } from 'zod';
import {
  EVENTS,
  type EventName,
  type Figure,
  MAJOR_EVENT,
  MAJOR_LIMITS,
  type MajorLimits,
  MINUTE_MS,
  NEEDS,
  RULE_STATE,
  type RuleState,
  SEVERITY,
} from '../desk/major_events.ts';
import { INPUT_NAMES, inputOf } from '../desk/major_inputs.ts';
import { readJson } from '../files.ts';
import { numberOf } from './desk_columns.ts';
import { type DeskFile, lookInto, newestOf, newestOfAll, SCRIPT_STATE, stateOf } from './desk_files.ts';
import type { DeskRecord } from './desk_index.ts';
import type { WebContext } from './route.ts';

const LIMITS_FILE = 'state/major_events_limits.json';
/** A monitor that runs writes its state each minute: this is five of them missed. */
const CURRENT_MS = 5 * MINUTE_MS;

const figure = z.number().nullable();
const time = figure.describe('ms.');
const BLIND = z.looseObject({
  input: z.string(),
  events: z.array(z.string()).default([]),
  since: z.number().nullable().default(null),
  why: z.string().nullable().default(null),
});
const STATE = SCRIPT_STATE.extend({
  blind: z.array(BLIND).default([]),
  untold: z.array(z.unknown()).default([]),
  // Of another version it is not known how the rules stand; all else is.
  rules: RULE_STATE.nullable().catch(null).default(null),
});

export const STANDINGS = ['unknown', 'blind', 'resting', 'waiting', 'armed'] as const;
const STANDING = z.object({
  state: z
    .enum(STANDINGS)
    .describe(
      'unknown: there is no state; blind: an input is missing; resting: told, and not again before resting_until; waiting: half of it has happened; armed: judged each minute.',
    ),
  severity: z.enum(['high', 'medium']),
  blind: z.array(z.object({ input: z.string(), since: time, why: z.string().nullable() })),
  resting_until: time,
  waiting: z
    .object({
      since: z.number().describe('The minute of what has happened, ms.'),
      until: z.number().describe('The last minute that it is waited for, ms.'),
      figure: z.number().describe('E1, E2: the highest count; E3, E4: dollars.'),
      price: figure.describe('E3, E4: of BTC when it began.'),
    })
    .nullable(),
});
type Standing = z.infer<typeof STANDING>;

const LIMITS = MAJOR_LIMITS.nullable().describe(
  'Of the limits file as it is now, which the monitor reads at its start; null: it is not sound.',
);
const INPUT = z.object({
  input: z.enum(INPUT_NAMES),
  events: z.array(z.enum(EVENTS)).describe('That cannot be judged without it.'),
  slot: figure.describe('Of its newest record, ms.'),
  value: figure.describe('Counts, percent, dollars, the price of BTC; of the anchor: shorts in loss.'),
  gte_120: figure.describe('Of the anchor: shorts with a profit of 120 % or more.'),
});

export const EVENTS_NOW = z.object({
  success: z.literal(true),
  is_known: z.boolean().describe('There is a state file.'),
  is_current: z.boolean().nullable().describe('The monitor has run in the last five minutes; null: never.'),
  age_seconds: figure.describe('Since the monitor last ran.'),
  ...{ data_time: figure, last_run: figure, last_success: figure, error: z.string().nullable() },
  blind: z.array(BLIND),
  untold_count: figure,
  limits: LIMITS,
  limits_fault: z.string().nullable(),
  last_count: figure.describe('The last signal_2h_count that was judged.'),
  colour: z
    .enum(['green', 'red'])
    .nullable()
    .describe('Of the anchor: what the last reversal led to, or was there first.'),
  inputs: z.array(INPUT).describe('The newest record of each series; what was judged is of data_time.'),
  standing: z.object(
    Object.fromEntries(EVENTS.map((event) => [event, STANDING])) as Record<EventName, typeof STANDING>,
  ),
  latest: MAJOR_EVENT.nullable(),
  events: z.object(
    Object.fromEntries(EVENTS.map((event) => [event, MAJOR_EVENT.nullable()])) as Record<
      EventName,
      z.ZodNullable<typeof MAJOR_EVENT>
    >,
  ),
});
export type EventsNow = z.infer<typeof EVENTS_NOW>;

/** The limits that an operator has set, or those that hold without. @returns null and why, where the file is not sound */
export function majorLimits(context: WebContext): { limits: MajorLimits | null; limits_fault: string | null } {
  let content: unknown;
  try {
    content = readJson(join(context.config.dataDir, LIMITS_FILE)) ?? {};
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { limits: null, limits_fault: `${LIMITS_FILE} is no JSON` };
  }
  const parsed = MAJOR_LIMITS.safeParse(content);
  if (parsed.success) return { limits: parsed.data, limits_fault: null };
  const { path, message } = parsed.error.issues[0]!;
  return { limits: null, limits_fault: `${LIMITS_FILE}: ${[path.join('.'), message].filter(Boolean).join(': ')}` };
}

/** Where the newest figure of each input is. */
const NEWEST: Record<Figure, { file: DeskFile; key: string; of(record: DeskRecord): unknown }> = {
  signal_2h_count: { file: 'escape_signal', key: 'sar-breadth', of: (record) => record.signal_2h_count },
  total_change: { file: 'coin_prices', key: '', of: (record) => record.total_change },
  liquidation_1h: { file: 'liquidation_1h', key: '', of: (record) => record.amount },
  price: { file: 'sar_slope', key: 'BTC', of: (record) => record.close },
  anchor: { file: 'anchor', key: '', of: (record) => shortsOf(record)?.loss },
};

function shortsOf(record: DeskRecord): Record<string, unknown> | undefined {
  return (record.stats as { short?: Record<string, unknown> } | undefined)?.short;
}

async function inputsNow(context: WebContext): Promise<EventsNow['inputs']> {
  const inputs: EventsNow['inputs'] = [];
  for (const name of Object.keys(NEWEST) as Figure[]) {
    const { file, key, of } = NEWEST[name];
    const index = await lookInto(context, file);
    const [record] = await index.read(newestOf(index.of(key), { limit: 1, offset: 0 }).places);
    inputs.push({
      input: inputOf(name),
      events: EVENTS.filter((event) => NEEDS[event].includes(name)),
      slot: numberOf(record?.slot),
      value: record === undefined ? null : numberOf(of(record)),
      gte_120: record === undefined || name !== 'anchor' ? null : numberOf(shortsOf(record)?.gte_120),
    });
  }
  return inputs;
}

/** How one rule stands at the minute that was judged last. */
function standingOf(event: EventName, state: z.infer<typeof STATE> | null, limits: MajorLimits | null): Standing {
  const blind = (state?.blind ?? [])
    .filter(({ events }) => events.includes(event))
    .map(({ input, since, why }) => ({ input, since, why }));
  const rules = state?.rules ?? null;
  const now = rules?.minute ?? null;
  const standing = { severity: SEVERITY[event], blind, resting_until: null, waiting: null };
  if (rules === null || now === null || limits === null)
    return { ...standing, state: blind.length > 0 ? 'blind' : 'unknown' };
  const resting_until = restingUntil(event, rules, now, limits);
  const waiting = waitingOf(event, rules, limits);
  const kind = blind.length > 0 ? 'blind' : resting_until !== null ? 'resting' : waiting !== null ? 'waiting' : 'armed';
  return { ...standing, state: kind, resting_until, waiting };
}

function restingUntil(event: EventName, { fired }: RuleState, now: number, limits: MajorLimits): number | null {
  // One liquidation has one outcome: what was told of it holds for both.
  const told = (event === 'E3' || event === 'E4' ? [fired.E3, fired.E4] : [fired[event]]).flatMap((each) => each ?? []);
  const until = Math.max(...told) + limits.cooldown_minutes * MINUTE_MS;
  return until > now ? until : null;
}

function waitingOf(event: EventName, { strong, weak, liquidation }: RuleState, limits: MajorLimits) {
  const top = event === 'E1' ? strong : event === 'E2' ? weak : null;
  if (top !== null) {
    const until = top.minute + limits.top_hours * 60 * MINUTE_MS;
    return { since: top.minute, until, figure: top.count, price: null };
  }
  if (liquidation === null || (event !== 'E3' && event !== 'E4')) return null;
  const until = liquidation.minute + limits.liquidation_minutes * MINUTE_MS;
  return { since: liquidation.minute, until, figure: liquidation.amount, price: liquidation.price };
}

export async function eventsNow(context: WebContext): Promise<EventsNow> {
  const state = stateOf(context, 'major_events.json', STATE);
  const { limits, limits_fault } = majorLimits(context);
  const inputs = await inputsNow(context);
  const index = await lookInto(context, 'major_events');
  const latest = newestOfAll(index, index.keys, { limit: 1, offset: 0 }).places;
  const places = EVENTS.map((event) => newestOf(index.of(event), { limit: 1, offset: 0 }).places[0]);
  const read = (await index.read([...latest, ...places.filter((place) => place !== undefined)])) as unknown as z.infer<
    typeof MAJOR_EVENT
  >[];
  const byEvent = new Map(read.map((event) => [event.event, event]));
  const of = <T>(made: (event: EventName) => T) =>
    Object.fromEntries(EVENTS.map((event) => [event, made(event)])) as Record<EventName, T>;
  const { last_run = null, data_time = null, last_success = null, error = null } = state ?? {};
  const age = last_run === null ? null : context.clock() - last_run;
  return {
    ...{ success: true, is_known: state !== null, is_current: age === null ? null : age < CURRENT_MS },
    age_seconds: age === null ? null : Math.round(age / 1000),
    ...{ data_time, last_run, last_success, error },
    ...{ blind: state?.blind ?? [], untold_count: state?.untold.length ?? null, limits, limits_fault },
    ...{ last_count: state?.rules?.last_count ?? null, colour: state?.rules?.colour ?? null, inputs },
    standing: of((event) => standingOf(event, state, limits)),
    latest: latest.length === 0 ? null : read[0]!,
    events: of((event) => byEvent.get(event) ?? null),
  };
}
