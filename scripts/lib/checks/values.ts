/** Checks of what rows say: impossible values, empty columns, prices far from all others. */
import { selectText } from '../clickhouse.ts';
import { at, STREAM } from '../gap_rows.ts';
import { type DataType, TABLES } from '../rows.ts';
import type { Check, Context, Finding, Severity } from './check.ts';
import type { Kind } from './kinds.ts';
import { MARKET_TYPES, plural, SETTINGS, subject, within } from './rows.ts';

/** A row may be stamped by a clock that is so far ahead of ours, ms. */
const FUTURE_MS = 60_000;
/** So long before the time it is known whether a column is usually told. */
const EARLIER_MS = 7 * 86_400_000;
/** A few rows may lack what a venue does not always tell. */
const ENOUGH_ROWS = 10;

/** Conditions under which a row cannot be right, by type. */
export const IMPOSSIBLE: { kind: Kind; types: DataType[]; condition: string; what: string; severity: Severity }[] = [
  {
    kind: 'zero_price',
    types: ['trade', 'liquidation'],
    condition: 'price <= 0',
    what: 'a price that is not above zero',
    severity: 'high',
  },
  {
    kind: 'zero_quantity',
    types: ['trade', 'liquidation'],
    condition: 'quantity <= 0',
    what: 'a quantity that is not above zero',
    severity: 'high',
  },
  {
    kind: 'crossed_book',
    types: ['orderbook'],
    condition: 'best_bid_price >= best_ask_price OR best_bid_price <= 0',
    what: 'a best bid that is not below the best ask, or not above zero',
    severity: 'high',
  },
  {
    kind: 'shares',
    types: ['lsr_top_position'],
    condition: 'abs(toFloat64(long_position_ratio) + toFloat64(short_position_ratio) - 1) > 0.01',
    what: 'shares that do not add to 1',
    severity: 'medium',
  },
  {
    kind: 'shares',
    types: ['lsr_all_account'],
    condition: 'abs(toFloat64(long_account_ratio) + toFloat64(short_account_ratio) - 1) > 0.01',
    what: 'shares that do not add to 1',
    severity: 'medium',
  },
  {
    kind: 'future_time',
    types: MARKET_TYPES,
    condition: `toUnixTimestamp64Milli(timestamp) > toUnixTimestamp64Milli(created_at) + ${FUTURE_MS}`,
    what: 'a time that was still to come when it was stored',
    severity: 'high',
  },
];
/** A rate of funding may rest at zero, and nothing need be open in a contract that nobody trades. */
export const MAY_BE_ZERO = new Set(['funding_rate', 'open_interest', 'open_interest_value', 'contracts']);

export const values: Check = {
  name: 'values',
  zh: '数值',
  question: 'Is any value impossible, far from its neighbours and other venues, or a column empty?',
  limit: ({ price_off_percent }) => `no impossible one; ${price_off_percent} % from the median of the minute`,
  fix: 'look at the rows by the query in --detailed-report; repair.ts --only refetch takes trades from the venue again',
  repairs: ['impossible', 'different'],
  standsOn: ['hot'],
  async ask(context) {
    const { hot, config } = context;
    const findings: Finding[] = [];
    let rows = 0;
    const add = async (
      kind: Kind,
      type: DataType,
      query: string,
      what: (cells: string[]) => string,
      severity: Severity,
    ) => {
      for (const cells of await selectText(hot, query, SETTINGS))
        findings.push({ kind, subject: subject(type, cells), what: what(cells), severity, evidence: query });
    };
    for (const type of MARKET_TYPES) {
      const table = `${config.hotDatabase}.${TABLES[type].name}`;
      // A row from the future lies in no time that is over.
      const lately = `timestamp >= ${at(context.from)}`;
      for (const { kind, types, condition, what, severity } of IMPOSSIBLE) {
        if (!types.includes(type)) continue;
        const query = `SELECT ${STREAM}, count() FROM ${table} WHERE ${lately} AND (${condition}) GROUP BY ${STREAM}`;
        await add(kind, type, query, (cells) => `${plural(Number(cells[3]), 'row')} with ${what}`, severity);
      }
      const decimals = TABLES[type].columns.filter(({ kind, name }) => kind === 'decimal' && !MAY_BE_ZERO.has(name));
      for (const { name } of decimals) {
        const query = `SELECT ${STREAM}, count() FROM ${table} WHERE ${within(context)} GROUP BY ${STREAM} HAVING countIf(ifNull(${name}, 0) != 0) = 0 AND countIf(${name} IS NOT NULL) > 0`;
        await add('zero_column', type, query, (cells) => `${name} is zero in all ${cells[3]} rows`, 'high');
      }
      findings.push(...(await emptyColumns(context, type)));
      rows += Number((await selectText(hot, `SELECT count() FROM ${table} WHERE ${within(context)}`, SETTINGS))[0]![0]);
    }
    await add(
      'far_price',
      'trade',
      farTrades(context),
      (cells) =>
        `${plural(Number(cells[3]), 'price')} more than ${context.limits.price_off_percent} % from the minute's median`,
      'medium',
    );
    await add(
      'far_venue',
      'trade',
      farVenues(context),
      (cells) =>
        `${plural(Number(cells[3]), 'minute')} in which its median is more than ${context.limits.price_off_percent} % from that of all venues`,
      'high',
    );
    return { figure: plural(rows, 'row'), findings };
  },
};

/** Columns that say nothing in any row of a stream, where they did in the days before. */
async function emptyColumns(context: Context, type: DataType): Promise<Finding[]> {
  const { hot, cold, config, from } = context;
  const names = TABLES[type].columns.filter(({ nullable }) => nullable).map(({ name }) => name);
  if (names.length === 0) return [];
  const counts = names.map((name) => `count(${name})`).join(', ');
  const query = (database: string, where: string) =>
    `SELECT ${STREAM}, count(), ${counts} FROM ${database}.${TABLES[type].name} WHERE ${where} GROUP BY ${STREAM}`;
  // What is fetched of the past tells less than what is sent.
  const now = query(config.hotDatabase, `${within(context)} AND NOT match(data_source, '^(backfill|repair):')`);
  const empty = (await selectText(hot, now, SETTINGS)).flatMap((cells) =>
    names.flatMap((name, i) =>
      Number(cells[3]) >= ENOUGH_ROWS && cells[4 + i] === '0' ? [{ name, i, cells, stream: subject(type, cells) }] : [],
    ),
  );
  if (empty.length === 0) return [];
  const before = query(config.coldDatabase, within({ ...context, from: from - EARLIER_MS, to: from }));
  const earlier = new Map((await selectText(cold, before, SETTINGS)).map((cells) => [subject(type, cells), cells]));
  return empty.flatMap(({ name, i, cells, stream }): Finding[] => {
    const told = Number(earlier.get(stream)?.[4 + i] ?? 0);
    if (told === 0) return [];
    const what = `${name} is empty in all ${cells[3]} rows, and was told ${told} times in the week before`;
    return [{ kind: 'null_column', subject: stream, what, severity: 'medium', evidence: now }];
  });
}

/** Trades whose price is far from the median of their stream in the same minute. */
function farTrades(context: Context): string {
  return (
    `SELECT ${STREAM}, count() FROM (SELECT ${STREAM}, toFloat64(price) AS own, quantileExact(0.5)(toFloat64(price)) OVER (PARTITION BY ${STREAM}, toStartOfMinute(timestamp)) AS median ` +
    `FROM ${context.config.hotDatabase}.trades WHERE ${within(context)} AND market_type != 'options') WHERE abs(own / median - 1) > ${context.limits.price_off_percent / 100} GROUP BY ${STREAM}`
  );
}

/** Minutes in which a stream's median is far from the median of all venues' streams of the same base. */
function farVenues(context: Context): string {
  return (
    `SELECT ${STREAM}, count() FROM (SELECT ${STREAM}, own, quantileExact(0.5)(own) OVER (PARTITION BY splitByChar('-', symbol)[1], minute) AS all, ` +
    `count() OVER (PARTITION BY splitByChar('-', symbol)[1], minute) AS venues FROM (SELECT ${STREAM}, toStartOfMinute(timestamp) AS minute, quantileExact(0.5)(toFloat64(price)) AS own ` +
    `FROM ${context.config.hotDatabase}.trades WHERE ${within(context)} AND market_type IN ('spot', 'perpetual') GROUP BY ${STREAM}, minute)) WHERE venues > 2 AND abs(own / all - 1) > ${context.limits.price_off_percent / 100} GROUP BY ${STREAM}`
  );
}
