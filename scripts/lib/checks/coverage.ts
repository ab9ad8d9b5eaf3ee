/** What there is in hot and cold, by exchange, market and type, and how much of what should be there that is. */
import { selectText } from '../clickhouse.ts';
import { at, ms } from '../gap_rows.ts';
import { type DataType, TABLES } from '../rows.ts';
import { textTable } from '../status.ts';
import { type Check, type Context, type Finding, oncePerRound, severityOfCompleteness } from './check.ts';
import { MARKET_TYPES, plural, SETTINGS, undeclaredHoles, within } from './rows.ts';

/** One line of the coverage table. */
export interface Coverage {
  exchange: string;
  market_type: string;
  data_type: DataType;
  hot: number;
  cold: number;
  /** Rows that are known to be missing: declared and not fetched back, or found now and declared by nobody. */
  missing: number;
  /** Gaps of which nobody can know how many rows they have. */
  uncounted: number;
  /** Rows stored of rows expected, percent; null where nothing came and nothing is known to be missing. */
  completeness: number | null;
  /** Of the newest row by the venue's clock, ms since the epoch; null: none. */
  newest: number | null;
}

/** The coverage table: each exchange, market and type that has rows or is known to lack some. */
export const coverage = oncePerRound(countCoverage);

async function countCoverage(context: Context): Promise<Coverage[]> {
  const lines = new Map<string, Coverage>();
  const line = (exchange: string, market_type: string, data_type: DataType): Coverage => {
    const key = `${data_type} ${exchange} ${market_type}`;
    let found = lines.get(key);
    if (!found) {
      found = {
        exchange,
        market_type,
        data_type,
        hot: 0,
        cold: 0,
        missing: 0,
        uncounted: 0,
        completeness: null,
        newest: null,
      };
      lines.set(key, found);
    }
    return found;
  };
  const { hot, cold, config } = context;
  for (const [tier, client, database] of [
    ['hot', hot, config.hotDatabase],
    ['cold', cold, config.coldDatabase],
  ] as const) {
    for (const type of MARKET_TYPES) {
      const query = `SELECT exchange, market_type, count(), ${ms('max(timestamp)')} FROM ${database}.${TABLES[type].name} WHERE ${within(context)} GROUP BY exchange, market_type`;
      for (const [exchange, market, count, newest] of await selectText(client, query, SETTINGS)) {
        const each = line(exchange!, market!, type);
        each[tier] = Number(count);
        each.newest = Math.max(each.newest ?? 0, Number(newest));
      }
    }
  }
  for (const { exchange, market, type, rows } of await missingRows(context)) {
    const each = line(exchange, market, type);
    if (rows === null) each.uncounted += 1;
    else each.missing += rows;
  }
  for (const each of lines.values()) {
    const stored = Math.max(each.hot, each.cold);
    each.completeness = stored + each.missing === 0 ? null : (100 * stored) / (stored + each.missing);
  }
  return [...lines.values()].sort((one, other) => keyOf(one).localeCompare(keyOf(other)));
}

function keyOf({ exchange, market_type, data_type }: Coverage): string {
  return `${exchange} ${market_type} ${data_type}`;
}

async function missingRows(context: Context) {
  const { hot, config, from, to } = context;
  const query =
    `SELECT exchange, market_type, data_type, if(rows IS NULL, '', toString(rows - least(ifNull(filled_rows, 0), rows))) FROM ${config.hotDatabase}.gaps_now ` +
    `WHERE status != 'filled' AND to_time >= ${at(from)} AND from_time < ${at(to)}`;
  const declared = (await selectText(hot, query, SETTINGS)).map(([exchange, market, type, rows]) => ({
    ...{ exchange: exchange!, market: market!, type: type as DataType },
    rows: rows === '' ? null : Number(rows),
  }));
  const { silent } = await undeclaredHoles(context);
  const found = silent.map(({ exchange, market_type, data_type, rows }) => ({
    ...{ exchange, market: market_type, type: data_type as DataType },
    rows: rows === null ? null : Number(rows),
  }));
  return [...declared, ...found];
}

/** Of all types together, percent; null where nothing came. */
export function completenessOf(lines: Coverage[]): number | null {
  const stored = lines.reduce((sum, { hot, cold }) => sum + Math.max(hot, cold), 0);
  const missing = lines.reduce((sum, each) => sum + each.missing, 0);
  return stored + missing === 0 ? null : (100 * stored) / (stored + missing);
}

export const completeness: Check = {
  name: 'completeness',
  zh: '完整率',
  question: 'How many of the rows that should be there are there, by exchange and type?',
  limit: ({ completeness_percent }) => `${completeness_percent} % of each`,
  fix: 'npx tsx scripts/manage.ts status tells the gaps',
  repairs: ['missing-in-hot', 'holes'],
  standsOn: ['nats', 'hot', 'cold', 'store'],
  async ask(context) {
    const lines = await coverage(context);
    const findings = lines.flatMap((each): Finding[] => {
      const { exchange, market_type, data_type, completeness: percent, missing, hot, cold } = each;
      if (percent === null || percent >= context.limits.completeness_percent) return [];
      return [
        {
          kind: 'incomplete',
          subject: `${data_type} ${exchange} ${market_type}`,
          what: `${percent.toFixed(1)} %: ${plural(missing, 'row')} missing, ${Math.max(hot, cold)} there`,
          severity: severityOfCompleteness(percent),
          evidence: `${context.config.hotDatabase}.gaps_now`,
        },
      ];
    });
    const whole = completenessOf(lines);
    return { figure: whole === null ? 'no rows' : `${percentText(whole)} of all rows`, findings };
  },
};

/** The table as people read it. @param now wall clock, ms */
export function coverageText(lines: Coverage[], now: number): string {
  const head = ['exchange', 'market', 'type', 'hot', 'cold', 'missing', 'complete', 'newest'];
  const rows = lines.map(
    ({ exchange, market_type, data_type, hot, cold, missing, uncounted, completeness: percent, newest }) => [
      ...[exchange, market_type, data_type, String(hot), String(cold)],
      uncounted === 0 ? String(missing) : `${missing} + ?`,
      percent === null ? '-' : percentText(percent),
      newest === null ? '-' : `${Math.round((now - newest) / 1000)} s`,
    ],
  );
  return textTable(head, rows, 3);
}

/** Never rounded up to 100. */
export function percentText(percent: number): string {
  return percent === 100 ? '100 %' : `${(Math.floor(percent * 1000) / 1000).toFixed(3)} %`;
}
