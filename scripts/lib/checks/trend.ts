/** Whether completeness declines from day to day, before it is bad enough for one day's limit. */
import { selectText } from '../clickhouse.ts';
import { at } from '../gap_rows.ts';
import { TABLES } from '../rows.ts';
import { type Check, type Context, type Finding, NotApplicable } from './check.ts';
import { percentText } from './coverage.ts';
import { MARKET_TYPES, SETTINGS, within } from './rows.ts';

const DAY_MS = 86_400_000;
const LATE_DAYS = 3;
/** So many points below the mean of all days. */
const MOST_POINTS = 20;

export const trend: Check = {
  name: 'trend',
  zh: '趋势',
  question: 'Does completeness decline over the days?',
  limit: () => `mean of the last ${LATE_DAYS} days at most ${MOST_POINTS} points below that of all`,
  fix: 'npx tsx scripts/manage.ts status tells the gaps; journalctl -u marketprism-collector of the days that are worse',
  standsOn: ['hot', 'cold'],
  async ask(context) {
    if (context.to - context.from < LATE_DAYS * DAY_MS) throw new NotApplicable('asked over days only: --deep');
    const streams = await completenessByDay(context);
    const findings: Finding[] = [];
    const all = new Map<string, number[]>();
    for (const [stream, days] of streams) {
      for (const [day, percent] of days) all.set(day, [...(all.get(day) ?? []), percent]);
      if (days.size <= LATE_DAYS) continue;
      const percents = [...days].sort(([one], [other]) => one.localeCompare(other)).map(([, percent]) => percent);
      const [late, whole] = [mean(percents.slice(-LATE_DAYS)), mean(percents)];
      if (whole - late <= MOST_POINTS) continue;
      findings.push({
        kind: 'declining',
        subject: stream,
        what: `${late.toFixed(1)} % in the last ${LATE_DAYS} days, ${whole.toFixed(1)} % in all ${percents.length}`,
        severity: 'medium',
        evidence: `${context.config.hotDatabase}.gaps_now`,
      });
    }
    if (all.size <= LATE_DAYS) throw new NotApplicable(`only ${all.size} days have rows`);
    const worst = [...all].map(([day, percents]) => [day, mean(percents)] as const).sort(([, a], [, b]) => a - b)[0]!;
    return { figure: `${all.size} days, the worst ${worst[0]}: ${percentText(worst[1])}`, findings };
  },
};

/** By `type exchange market`, and UTC day. Rows are counted in cold, and what is missing where the gaps are. */
async function completenessByDay(context: Context): Promise<Map<string, Map<string, number>>> {
  const { hot, cold, config, from, to } = context;
  const missing = new Map<string, number>();
  const gaps =
    `SELECT data_type, exchange, market_type, toString(toDate(from_time)), sum(rows - least(ifNull(filled_rows, 0), rows)) FROM ${config.hotDatabase}.gaps_now ` +
    `WHERE status != 'filled' AND rows IS NOT NULL AND to_time >= ${at(from)} AND from_time < ${at(to)} GROUP BY 1, 2, 3, 4`;
  for (const [type, exchange, market, day, rows] of await selectText(hot, gaps, SETTINGS))
    missing.set(`${type} ${exchange} ${market} ${day}`, Number(rows));
  const streams = new Map<string, Map<string, number>>();
  for (const type of MARKET_TYPES) {
    const query = `SELECT exchange, market_type, toString(toDate(timestamp)), count() FROM ${config.coldDatabase}.${TABLES[type].name} WHERE ${within(context)} GROUP BY 1, 2, 3`;
    for (const [exchange, market, day, count] of await selectText(cold, query, SETTINGS)) {
      const stream = `${type} ${exchange} ${market}`;
      const stored = Number(count);
      const percent = (100 * stored) / (stored + (missing.get(`${stream} ${day}`) ?? 0));
      const days = streams.get(stream) ?? new Map<string, number>();
      streams.set(stream, days.set(day!, percent));
    }
  }
  return streams;
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
