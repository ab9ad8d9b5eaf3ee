/** What a check is, what it answers, and what that means for the whole. */
import type { ClickHouseClient } from '@clickhouse/client';
import type { Config } from '../config.ts';
import type { RepairName } from '../repair/names.ts';
import { EXIT, type Verdict } from '../status.ts';
import type { Kind } from './kinds.ts';
import type { Limits } from './limits.ts';

/** A hint is told and changes nothing; low and medium are warnings; high and critical make the whole unhealthy. */
export const SEVERITIES = ['hint', 'low', 'medium', 'high', 'critical'] as const;
export type Severity = (typeof SEVERITIES)[number];

/** One thing that is wrong. */
export interface Finding {
  /** With check and subject it names the same finding in each round, while `what` tells figures. */
  kind: Kind;
  /** What it is about, such as `trade okx_spot spot BTC-USDT`. */
  subject: string;
  what: string;
  severity: Severity;
  /** A query that shows it, or what was asked. */
  evidence: string;
}

export interface Answer {
  /** What was measured, in words. */
  figure: string;
  findings: Finding[];
}

/** The reference of a check cannot exist here: that is no fault, and no clean answer either. */
export class NotApplicable extends Error {}

/** What all checks are given. */
export interface Context {
  config: Config;
  hot: ClickHouseClient;
  cold: ClickHouseClient;
  /** The time that is looked at, by the venues' clocks, ms. */
  from: number;
  to: number;
  /** Wall clock, as the rows' times are, ms. */
  now: number;
  limits: Limits;
}

/** One question, and what is to be done when its answer is bad. */
export interface Check {
  name: string;
  /** The name in Chinese. */
  zh: string;
  question: string;
  /** Beyond which it is a finding. */
  limit(limits: Limits): string;
  /** A command, or what to look at. */
  fix: string;
  /** Kinds of repair.ts that mend it. */
  repairs?: readonly RepairName[];
  /** What must answer before this can be right: while one of them is down, what is found here is no news. */
  standsOn: readonly Part[];
  /** It asks how things are, whatever the time that is looked at. */
  isOfNow?: boolean;
  ask(context: Context): Promise<Answer>;
}

export type CheckVerdict = Verdict | 'not applicable';

export interface Outcome {
  check: Check;
  /** As it was set then. */
  limit: string;
  verdict: CheckVerdict;
  /** What was measured, or why nothing was. */
  figure: string;
  findings: Finding[];
  ms: number;
}

/** What runs, as the check of services names it. */
export const PARTS = ['nats', 'hot', 'cold', 'collector', 'store', 'replicate'] as const;
export type Part = (typeof PARTS)[number];

/** Asked once a round, whoever needs it. */
export function oncePerRound<T>(ask: (context: Context) => Promise<T>): (context: Context) => Promise<T> {
  const asked = new WeakMap<Context, Promise<T>>();
  return (context) => {
    let answer = asked.get(context);
    if (!answer) asked.set(context, (answer = ask(context)));
    return answer;
  };
}

/** @param percent rows stored of rows expected, 0 to 100 */
export function severityOfCompleteness(percent: number): Severity {
  if (percent >= 95) return 'low';
  if (percent >= 80) return 'medium';
  return percent >= 50 ? 'high' : 'critical';
}

/** Asks one check. One that fails is told as not checked: that is never the same as nothing found. @param clock steady, ms */
export async function run(check: Check, context: Context, clock: () => number): Promise<Outcome> {
  const begun = clock();
  const outcome = (verdict: CheckVerdict, figure: string, findings: Finding[] = []): Outcome => ({
    ...{ check, limit: check.limit(context.limits), verdict, figure, findings },
    ms: Math.round(clock() - begun),
  });
  try {
    const { figure, findings } = await check.ask(context);
    return outcome(verdictOfFindings(findings), figure, findings);
  } catch (error) {
    const reason = (error as Error).message.split('\n')[0]!;
    return outcome(error instanceof NotApplicable ? 'not applicable' : 'unchecked', reason);
  }
}

function verdictOfFindings(findings: Finding[]): CheckVerdict {
  const worst = Math.max(0, ...findings.map(({ severity }) => SEVERITIES.indexOf(severity)));
  if (worst >= SEVERITIES.indexOf('high')) return 'unhealthy';
  return worst >= SEVERITIES.indexOf('low') ? 'degraded' : 'healthy';
}

/** Over all checks: what could not be asked makes the whole not known, whatever else was found. */
export function verdictOfAll(outcomes: Outcome[]): Verdict {
  const verdicts = outcomes.map(({ verdict }) => verdict).filter((verdict) => verdict !== 'not applicable');
  return verdicts.reduce((worst, each) => (EXIT[each] > EXIT[worst] ? each : worst), 'healthy' as Verdict);
}
