/**
 * Findings become alerts: the first is told at once, what stands is counted, what gets worse or ends is told, and what only follows from a part
 * that is down, or comes and goes, is recorded without a word; what somebody acknowledged is told no more as it is. Pure: rounds in, news out.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Finding, type Outcome, PARTS, type Part, SEVERITIES, type Severity } from './checks/check.ts';
import { KINDS, type Kind } from './checks/kinds.ts';
import type { Limits } from './checks/limits.ts';
import { DEPTHS, type Depth, deeper } from './checks/round.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** Alerts that are over are remembered up to so many. */
const MOST_OVER = 500;

const STATES = ['standing', 'over'] as const;
const ms = z.number();

/** What somebody says who knows of an alert: who it is, and what is done about it. */
export const ACKNOWLEDGE = z.strictObject({
  by: z.string().trim().min(1).max(100).optional(),
  note: z.string().trim().min(1).max(1000).optional(),
});

/** One thing that is or was wrong; all times in ms since the epoch. */
export const ALERT = z.object({
  /** The same for the same check, kind and subject, in each round and each process. */
  fingerprint: z.string(),
  check: z.string(),
  kind: z.enum(Object.keys(KINDS) as Kind[]),
  subject: z.string(),
  /** Of the last round that found it. */
  severity: z.enum(SEVERITIES),
  what: z.string(),
  evidence: z.string(),
  fix: z.string(),
  state: z.enum(STATES),
  /** Since it was raised last. */
  since: ms,
  last_seen: ms,
  over_at: ms.nullable(),
  /** Rounds that found it since then. */
  times: z.number().int(),
  /** How much time the longest round looked at that found it: a shorter one that does not find it proves nothing. */
  depth: z.enum(DEPTHS),
  /** The part that is down, from which this follows; null: none. */
  muted_by: z.enum(PARTS).nullable(),
  /** When it was raised, lately. */
  raises: z.array(ms),
  /** It comes and goes: nobody hears of it until it rests. */
  is_flapping: z.boolean(),
  /** What was last told of it; null: nothing yet. */
  told: z.object({ state: z.enum(STATES), severity: z.enum(SEVERITIES), at: ms }).nullable(),
  /** Somebody knows of it as it was then; null: nobody said so since it was raised, or since it got worse. */
  acknowledged: z
    .object({ at: ms, severity: z.enum(SEVERITIES), by: z.string().nullable(), note: z.string().nullable() })
    .nullable()
    .default(null),
});
export type Alert = z.infer<typeof ALERT>;

export type NewsEvent = 'raised' | 'muted' | 'escalated' | 'reminder' | 'flapping' | 'recovered';

export interface News {
  event: NewsEvent;
  alert: Alert;
  /** Recorded, and nobody is notified: it follows from another one, or is not severe enough. */
  isQuiet: boolean;
  /** What was told of it before. */
  before: Alert['told'];
}

/** What was asked in one round, and over how much time. */
export interface Judged {
  outcome: Outcome;
  depth: Depth;
}

export function fingerprintOf(check: string, { kind, subject }: Pick<Finding, 'kind' | 'subject'>): string {
  return createHash('sha256').update(`${check}\0${kind}\0${subject}`).digest('hex').slice(0, 16);
}

const rank = (severity: Severity) => SEVERITIES.indexOf(severity);

/** All alerts, and what each round changes of them. */
export class Alerts {
  private readonly all: Map<string, Alert>;

  constructor(kept: readonly Alert[] = []) {
    this.all = new Map(kept.map((alert) => [alert.fingerprint, alert]));
  }

  /** Standing ones first, then the newest. */
  get list(): Alert[] {
    const place = ({ state, over_at, since }: Alert) => [state === 'standing' ? 1 : 0, over_at ?? since] as const;
    return [...this.all.values()].sort((one, other) => {
      const [[a, at], [b, bt]] = [place(one), place(other)];
      return b - a || bt - at;
    });
  }

  get standing(): Alert[] {
    return this.list.filter(({ state }) => state === 'standing');
  }

  /** Forgets all. What still stands is raised again by the next round. @returns how many there were */
  clear(): number {
    const { size } = this.all;
    this.all.clear();
    return size;
  }

  /**
   * Somebody knows of an alert: while it stands and gets no worse, nobody is told of it any more.
   * @param now wall clock, ms
   * @returns the alert; null: there is none of this fingerprint, or it is over
   */
  acknowledge(fingerprint: string, { by, note }: z.infer<typeof ACKNOWLEDGE>, now: number): Alert | null {
    const alert = this.all.get(fingerprint);
    if (alert?.state !== 'standing') return null;
    const { state, severity } = alert;
    alert.acknowledged = { at: now, severity, by: by ?? null, note: note ?? null };
    // Whoever acknowledges it knows it as it is, whether a message reached him or not.
    alert.told = { state, severity, at: now };
    return alert;
  }

  /** Nobody could be reached: the next round tells it again. */
  untell(news: readonly News[]): void {
    for (const { event, alert, before } of news) {
      const known = this.all.get(alert.fingerprint);
      if (known === undefined) continue;
      known.told = before;
      if (event === 'flapping') known.is_flapping = false;
    }
  }

  /** The longest time over which a standing alert of the check was found; what is to end it must look at as much. */
  depthOf(check: string): Depth {
    const own = this.standing.filter((alert) => alert.check === check);
    return own.reduce<Depth>((depth, alert) => deeper(depth, alert.depth), 'quick');
  }

  /** @param now wall clock, ms @returns what is new, the worst first */
  take(round: readonly Judged[], limits: Limits, now: number): News[] {
    const down = partsDown(round);
    for (const judged of round) this.takeCheck(judged, down, now);
    const news = this.list.flatMap((alert) => newsOf(alert, limits, now) ?? []);
    this.forgetOld();
    return news.sort((one, other) => rank(other.alert.severity) - rank(one.alert.severity));
  }

  private takeCheck({ outcome, depth }: Judged, down: ReadonlySet<Part>, now: number): void {
    const { check, verdict, figure } = outcome;
    const isAnswered = verdict !== 'unchecked';
    const lookedAt = check.isOfNow ? 'quick' : depth;
    const findings: Finding[] = isAnswered
      ? merged(outcome.findings)
      : [{ kind: 'unchecked', subject: check.name, what: figure, severity: 'high', evidence: check.question }];
    const found = new Set<string>();
    for (const finding of findings) {
      const fingerprint = fingerprintOf(check.name, finding);
      found.add(fingerprint);
      const { kind, subject, severity, what, evidence } = finding;
      const known = this.all.get(fingerprint);
      const isStanding = known?.state === 'standing';
      this.all.set(fingerprint, {
        ...{ fingerprint, check: check.name, kind, subject, severity, what, evidence, fix: check.fix },
        ...{ state: 'standing', since: isStanding ? known.since : now, last_seen: now, over_at: null },
        times: isStanding ? known.times + 1 : 1,
        depth: isStanding ? deeper(known.depth, lookedAt) : lookedAt,
        // What is down itself follows from nothing here.
        muted_by: kind === 'down' ? null : (check.standsOn.find((part) => down.has(part)) ?? null),
        raises: isStanding ? known.raises : [...(known?.raises ?? []), now],
        is_flapping: known?.is_flapping ?? false,
        told: known?.told ?? null,
        acknowledged: isStanding ? stillKnown(known, severity) : null,
      });
    }
    for (const alert of this.standing) {
      if (alert.check !== check.name || found.has(alert.fingerprint)) continue;
      // An answer ends only that there was none; no answer ends nothing.
      if (!isAnswered || (alert.kind !== 'unchecked' && deeper(alert.depth, depth) !== depth)) continue;
      alert.state = 'over';
      alert.over_at = now;
    }
  }

  private forgetOld(): void {
    const over = this.list.filter(({ state }) => state === 'over');
    for (const { fingerprint } of over.slice(MOST_OVER)) this.all.delete(fingerprint);
  }
}

/** What is worse than what was acknowledged is not known. */
function stillKnown({ acknowledged }: Alert, severity: Severity): Alert['acknowledged'] {
  return acknowledged !== null && rank(severity) <= rank(acknowledged.severity) ? acknowledged : null;
}

function partsDown(round: readonly Judged[]): Set<Part> {
  const findings = round.flatMap(({ outcome }) => outcome.findings);
  return new Set(findings.filter(({ kind }) => kind === 'down').map(({ subject }) => subject as Part));
}

/** Findings that are told, those of one kind and subject as one. */
function merged(findings: readonly Finding[]): Finding[] {
  const bySubject = new Map<string, Finding[]>();
  for (const finding of findings) {
    if (finding.severity === 'hint') continue;
    const key = `${finding.kind}\0${finding.subject}`;
    bySubject.set(key, [...(bySubject.get(key) ?? []), finding]);
  }
  return [...bySubject.values()].map((same) => {
    const worst = same.reduce((one, other) => (rank(other.severity) > rank(one.severity) ? other : one));
    return same.length === 1 ? worst : { ...worst, what: `${worst.what} (and ${same.length - 1} more like it)` };
  });
}

/** What is to be told of an alert now, and marks it as told. */
function newsOf(alert: Alert, limits: Limits, now: number): News | null {
  const { state, severity, told } = alert;
  const news = (event: NewsEvent, isQuiet = false): News => {
    alert.told = { state, severity, at: now };
    return { event, alert: { ...alert }, isQuiet, before: told };
  };
  const flap = flapOf(alert, limits, now);
  // Of what nobody was told, its flapping is no news either.
  if (flap === 'begins' && told !== null && isHeard(alert, limits)) return news('flapping');
  if (flap !== 'none') return null;
  if (state === 'over') return told?.state === 'standing' ? news('recovered', !isHeard(alert, limits)) : null;
  if (alert.muted_by !== null) {
    // Once; it is told when it still stands after what it follows from is up again.
    return told === null && alert.times === 1
      ? { event: 'muted', alert: { ...alert }, isQuiet: true, before: null }
      : null;
  }
  if (told?.state !== 'standing') return news('raised', !isHeard(alert, limits));
  if (rank(severity) > rank(told.severity)) return news('escalated', !isHeard(alert, limits));
  if (alert.acknowledged !== null) return null;
  const isDue = limits.reminder_hours > 0 && now - told.at >= limits.reminder_hours * HOUR_MS;
  return isDue && rank(severity) >= rank('high') ? news('reminder') : null;
}

function isHeard({ severity }: Alert, { notify_from }: Limits): boolean {
  return rank(severity) >= rank(notify_from);
}

/** Whether an alert comes and goes. It ends when it was raised no more for as long as that is counted. */
function flapOf(alert: Alert, { flap_minutes, flap_raises }: Limits, now: number): 'none' | 'begins' | 'goes on' {
  alert.raises = alert.raises.filter((at) => now - at < flap_minutes * MINUTE_MS);
  if (alert.is_flapping && alert.raises.length === 0) alert.is_flapping = false;
  if (alert.is_flapping) return 'goes on';
  if (alert.raises.length < flap_raises) return 'none';
  alert.is_flapping = true;
  return 'begins';
}
