/** Checks of rows: whether any is missing, doubled, late or impossible. */

import { streamKey } from '../arrivals.ts';
import { selectText } from '../clickhouse.ts';
import { contentsByStream, contentsQuery, NOTHING } from '../contents.ts';
import type { Mark } from '../exchange.ts';
import { findBrokenChains, hasChain } from '../gap_chains.ts';
import { findMissing, type Sequence } from '../gap_finder.ts';
import { at, type FinderOptions, keyOf, ms, STREAM, storedStreams } from '../gap_rows.ts';
import { sequences } from '../gap_sequences.ts';
import { pause } from '../pause.ts';
import { DATA_TYPES, type DataType, type GapRow, TABLES } from '../rows.ts';
import {
  type Check,
  type Context,
  type Finding,
  NotApplicable,
  oncePerRound,
  type Severity,
  severityOfCompleteness,
} from './check.ts';
import type { Limits } from './limits.ts';

export const SETTINGS = { max_execution_time: 300 };
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
/** Rows of market data; gaps are told by checks of their own. */
export const MARKET_TYPES = DATA_TYPES.filter((type) => type !== 'gap');
const STEADY_TYPES: readonly DataType[] = ['trade', 'orderbook', 'orderbook_update'];
/** A hole is the store's own business for this long beyond its age: it looks, declares and publishes. */
const DECLARED_WITHIN_MS = 30_000;
/** Hot has what arrived in the last three days: of the last two it has everything. */
const HOT_HAS_MS = 48 * HOUR_MS;
/** A round of replication goes on while it is compared with: what differs then must differ again. */
const SECOND_LOOK_MS = 15_000;

export function subject(type: string, [exchange, market, symbol]: string[]): string {
  return `${type} ${exchange} ${market} ${symbol}`;
}

export function within({ from, to }: Context): string {
  return `timestamp >= ${at(from)} AND timestamp < ${at(to)}`;
}

export function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** When a stream is silent for too long, ms, and how bad that is. */
function silence(type: DataType, limits: Limits): { limitMs: number; severity: Severity } {
  if (STEADY_TYPES.includes(type)) return { limitMs: limits.freshness_minutes * MINUTE_MS, severity: 'high' };
  if (type === 'liquidation') return { limitMs: HOUR_MS, severity: 'hint' };
  return { limitMs: limits.low_frequency_hours * HOUR_MS, severity: 'medium' };
}

export const freshness: Check = {
  name: 'freshness',
  zh: '新鲜度',
  question: 'Is each stream that was there in the last day still coming?',
  limit: ({ freshness_minutes, low_frequency_hours }) =>
    `trades and books ${freshness_minutes} min, others ${low_frequency_hours} h, liquidations 1 h (a hint)`,
  fix: 'journalctl -u marketprism-collector; curl -s http://127.0.0.1:8087/health',
  standsOn: ['nats', 'hot', 'collector', 'store'],
  isOfNow: true,
  async ask({ hot, config, now, limits }) {
    const database = config.hotDatabase;
    const findings: Finding[] = [];
    const seen = new Set<string>();
    let streams = 0;
    for (const type of MARKET_TYPES) {
      const query = `SELECT ${STREAM}, ${ms('max(timestamp)')} FROM ${database}.${TABLES[type].name} WHERE created_at > ${at(now - 24 * HOUR_MS)} GROUP BY ${STREAM}`;
      const { limitMs, severity } = silence(type, limits);
      for (const cells of await selectText(hot, query, SETTINGS)) {
        streams += 1;
        seen.add(cells[0]!);
        const age = now - Number(cells[3]);
        if (age <= limitMs) continue;
        const what = `the newest is ${(age / MINUTE_MS).toFixed(1)} min old`;
        findings.push({ kind: 'silent', subject: subject(type, cells), what, severity, evidence: query });
      }
    }
    for (const exchange of config.exchanges.filter((each) => !seen.has(each))) {
      const what = 'no row of it arrived in the last 24 h';
      const evidence = `${database}: all tables`;
      findings.push({ kind: 'silent', subject: exchange, what, severity: 'critical', evidence });
    }
    return { figure: plural(streams, 'stream'), findings };
  },
};

export const duplicates: Check = {
  name: 'duplicates',
  zh: '重复',
  question: 'Is any row in hot or in cold more than once?',
  limit: () => '0',
  fix: 'look at the rows by the query in --detailed-report',
  repairs: ['duplicates'],
  standsOn: ['hot', 'cold'],
  async ask(context) {
    const { hot, cold, config } = context;
    const findings: Finding[] = [];
    let rows = 0;
    for (const [tier, client, database] of [
      ['hot', hot, config.hotDatabase],
      ['cold', cold, config.coldDatabase],
    ] as const) {
      for (const type of DATA_TYPES) {
        const { name, key } = TABLES[type];
        const query = `SELECT ${STREAM}, count(), uniqExact(${key.join(', ')}) FROM ${database}.${name} WHERE ${within(context)} GROUP BY ${STREAM}`;
        for (const cells of await selectText(client, query, SETTINGS)) {
          const [count, unique] = cells.slice(3).map(Number) as [number, number];
          rows += count;
          if (count === unique) continue;
          const what = `${plural(count - unique, 'row')} too many in ${database}`;
          const finding = { subject: subject(type, cells), evidence: query };
          findings.push({ ...finding, kind: `doubled_in_${tier}`, what, severity: 'high' });
        }
      }
    }
    return { figure: plural(rows, 'row'), findings };
  },
};

export const continuity: Check = {
  name: 'continuity',
  zh: '连续性',
  question: 'Is everything that is missing between two rows declared as a gap?',
  limit: () => '0 undeclared rows',
  fix: 'look at what is missing by the query in --detailed-report',
  repairs: ['missing-in-hot', 'holes'],
  standsOn: ['nats', 'hot', 'store'],
  async ask(context) {
    const { holes, silent } = await undeclaredHoles(context);
    const counts = await rowsByStream(context);
    const findings = silent.map((gap): Finding => {
      const stored = counts.get(`${gap.data_type} ${keyOf(gap)}`) ?? 0;
      const severity =
        gap.rows === null ? 'medium' : severityOfCompleteness((100 * stored) / (stored + Number(gap.rows)));
      return {
        kind: 'undeclared',
        subject: subject(gap.data_type, [gap.exchange, gap.market_type, gap.symbol]),
        what: `${gap.rows ?? 'unknown many'} rows from ${gap.from_id} to ${gap.to_id} are missing, and nobody said so`,
        severity,
        evidence: `SELECT * FROM ${context.config.hotDatabase}.gaps_now WHERE exchange = '${gap.exchange}' AND symbol = '${gap.symbol}' AND data_type = '${gap.data_type}'`,
      };
    });
    return { figure: `${plural(holes, 'hole')}, ${silent.length} undeclared`, findings };
  },
};

interface Holes {
  holes: number;
  silent: GapRow[];
}

async function findHoles(context: Context): Promise<Holes> {
  const { hot, config, now } = context;
  const options: FinderOptions = {
    client: hot,
    database: config.hotDatabase,
    types: DATA_TYPES,
    dataSource: config.mode,
    ageMs: config.gapAgeMs * 2 + DECLARED_WITHIN_MS,
    collectorStart: async () => null,
  };
  const settled = { epoch: Number.MAX_SAFE_INTEGER, seq: Number.MAX_SAFE_INTEGER };
  const found: GapRow[] = [];
  for (const sequence of sequences()) {
    const all = await storedStreams(hot, config.hotDatabase, TABLES[sequence.type].name);
    const firsts = await firstNumbers(context, sequence);
    const streams = all.filter((stream) => sequence.covers(stream) && firsts.has(keyOf(stream)));
    found.push(...(await findMissing(options, sequence, streams, firsts, now, settled)).gaps);
  }
  const heads = await firstDiffs(context);
  const books = (await storedStreams(hot, config.hotDatabase, TABLES.orderbook_update.name)).filter(
    (stream) => hasChain(stream) && heads.has(keyOf(stream)),
  );
  found.push(...(await findBrokenChains(options, books, heads, now, settled)).gaps);
  const declared = await declaredGaps(context);
  const inTime = found.filter((gap) => gap.to_time >= context.from && gap.from_time < context.to);
  return { holes: inTime.length, silent: inTime.filter((gap) => !isDeclared(gap, declared)) };
}

/** Holes of the time, and those of them that no gap declares, as the gaps that they should be. */
export const undeclaredHoles = oncePerRound(findHoles);

/** The first number of each stream in the time, before which nothing is asked. */
async function firstNumbers(context: Context, { type, number, only }: Sequence): Promise<Map<string, Mark>> {
  const query =
    `SELECT ${STREAM}, toString(argMin(number, timestamp)), ${ms('min(timestamp)')} FROM (SELECT ${STREAM}, timestamp, ${number} AS number ` +
    `FROM ${context.config.hotDatabase}.${TABLES[type].name} WHERE ${only} AND ${within(context)}) WHERE number > 0 GROUP BY ${STREAM}`;
  return marksFrom(await selectText(context.hot, query, SETTINGS));
}

async function firstDiffs(context: Context): Promise<Map<string, Mark>> {
  const query = `SELECT ${STREAM}, toString(argMin(last_update_id, timestamp)), ${ms('min(timestamp)')} FROM ${context.config.hotDatabase}.orderbook_updates WHERE NOT is_snapshot AND ${within(context)} GROUP BY ${STREAM}`;
  return marksFrom(await selectText(context.hot, query, SETTINGS));
}

function marksFrom(rows: string[][]): Map<string, Mark> {
  return new Map(
    rows.map(([exchange, market, symbol, id, time]) => [
      streamKey(exchange!, market!, symbol!),
      { id: id!, time: Number(time) },
    ]),
  );
}

interface Declared {
  key: string;
  from: bigint;
  to: bigint;
}

/** A gap that was filled declares nothing: what is missing there again was lost since. */
async function declaredGaps({ hot, config }: Context): Promise<Declared[]> {
  const query = `SELECT data_type, ${STREAM}, from_id, to_id FROM ${config.hotDatabase}.gaps_now WHERE status != 'filled'`;
  return (await selectText(hot, query, SETTINGS)).map(([type, exchange, market, symbol, from, to]) => ({
    key: `${type} ${streamKey(exchange!, market!, symbol!)}`,
    from: BigInt(from!),
    to: BigInt(to!),
  }));
}

function isDeclared(gap: GapRow, declared: Declared[]): boolean {
  const key = `${gap.data_type} ${keyOf(gap)}`;
  return declared.some((each) => each.key === key && each.from <= BigInt(gap.from_id) && BigInt(gap.to_id) <= each.to);
}

async function rowsByStream(context: Context): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const type of MARKET_TYPES) {
    const query = `SELECT ${STREAM}, count() FROM ${context.config.hotDatabase}.${TABLES[type].name} WHERE ${within(context)} GROUP BY ${STREAM}`;
    for (const [exchange, market, symbol, count] of await selectText(context.hot, query, SETTINGS))
      counts.set(`${type} ${streamKey(exchange!, market!, symbol!)}`, Number(count));
  }
  return counts;
}

export const gaps: Check = {
  name: 'gaps',
  zh: '缺口',
  question: 'Which rows are known to be missing?',
  limit: ({ open_gap_minutes }) =>
    `none open for more than ${open_gap_minutes} min; those that no venue serves are a hint`,
  fix: 'npx tsx scripts/manage.ts status',
  standsOn: ['nats', 'hot', 'collector', 'store'],
  async ask(context) {
    const { hot, config, now, limits } = context;
    const query =
      `SELECT data_type, ${STREAM}, toString(status), ${ms('detected_at')}, ifNull(toString(rows), '?') FROM ${config.hotDatabase}.gaps_now ` +
      `WHERE to_time >= ${at(context.from)} AND from_time < ${at(context.to)} AND status != 'filled'`;
    const findings: Finding[] = [];
    const counts = { open: 0, unfillable: 0 };
    for (const [type, ...cells] of await selectText(hot, query, SETTINGS)) {
      const [status, detected, rows] = cells.slice(3) as ['open' | 'unfillable', string, string];
      counts[status] += 1;
      const age = now - Number(detected);
      const isOld = status === 'open' && age > limits.open_gap_minutes * MINUTE_MS;
      if (status === 'open' && !isOld) continue;
      findings.push({
        kind: isOld ? 'open' : 'unfillable',
        subject: subject(type!, cells),
        what: isOld ? `${rows} rows, open for ${Math.round(age / MINUTE_MS)} min` : `${rows} rows that nobody serves`,
        severity: isOld ? 'medium' : 'hint',
        evidence: query,
      });
    }
    return { figure: `${counts.open} open, ${counts.unfillable} unfillable`, findings };
  },
};

export const hotAgainstCold: Check = {
  name: 'hot against cold',
  zh: '冷热一致性',
  question: 'Does cold hold what hot holds, up to where replication says so, by count and hash?',
  limit: ({ replication_lag_minutes }) => `0 rows; lag ${replication_lag_minutes} min`,
  fix: 'journalctl -u marketprism-replicate',
  repairs: ['different', 'missing-in-hot', 'missing-in-cold'],
  standsOn: ['hot', 'cold', 'replicate'],
  async ask(context) {
    const { hot, cold, config, now } = context;
    if (context.to < now - HOT_HAS_MS) throw new NotApplicable('hot does not reach back so far');
    const span = { ...context, from: Math.max(context.from, now - HOT_HAS_MS) };
    const findings: Finding[] = [];
    let rows = 0;
    let lag = 0;
    for (const type of DATA_TYPES) {
      const { name } = TABLES[type];
      const upto = await progressOf(context, name);
      const waiting = `SELECT ${ms('min(created_at)')}, count() FROM ${config.hotDatabase}.${name} WHERE (js_epoch, js_seq) > ${upto}`;
      const [[oldest, count] = []] = await selectText(hot, waiting, SETTINGS);
      if (Number(count) > 0) lag = Math.max(lag, now - Number(oldest));
      let different = await differing(span, type);
      // While rows wait to be replicated, what was brought back into hot may wait among them.
      if (different.length > 0 && Number(count) > 0) {
        await pause(SECOND_LOOK_MS);
        different = await differing(span, type);
      }
      for (const each of different) findings.push(each);
      const total = `SELECT count() FROM ${config.coldDatabase}.${name} WHERE ${within(span)}`;
      rows += Number((await selectText(cold, total, SETTINGS))[0]![0]);
    }
    if (lag > context.limits.replication_lag_minutes * MINUTE_MS)
      findings.push({
        kind: 'lag',
        subject: 'replication',
        what: `${Math.round(lag / MINUTE_MS)} min behind`,
        severity: 'medium',
        evidence: `${config.coldDatabase}.replication_progress`,
      });
    return { figure: `${plural(rows, 'row')} in cold, ${(lag / MINUTE_MS).toFixed(1)} min behind`, findings };
  },
};

async function progressOf({ cold, config }: Context, table: string): Promise<string> {
  const query = `SELECT max((js_epoch, upto_seq)).1, max((js_epoch, upto_seq)).2 FROM ${config.coldDatabase}.replication_progress WHERE table_name = '${table}'`;
  const [[epoch, seq] = []] = await selectText(cold, query, SETTINGS);
  return `(${epoch}, ${seq})`;
}

/** Streams of a type of which hot, as far as it is replicated, and cold do not hold the same. */
async function differing(context: Context, type: DataType): Promise<Finding[]> {
  const { hot, cold, config } = context;
  const replicated = `${within(context)} AND (js_epoch, js_seq) <= ${await progressOf(context, TABLES[type].name)}`;
  const inHot = await contentsByStream(hot, config.hotDatabase, type, replicated);
  const inCold = await contentsByStream(cold, config.coldDatabase, type, within(context));
  const findings: Finding[] = [];
  for (const stream of new Set([...inHot.keys(), ...inCold.keys()])) {
    const [one, other] = [inHot.get(stream) ?? NOTHING, inCold.get(stream) ?? NOTHING];
    if (one.rows === other.rows && one.hash === other.hash) continue;
    const [less, more] = [Math.min(one.rows, other.rows), Math.max(one.rows, other.rows)];
    const lacking = one.rows < other.rows ? 'hot' : 'cold';
    findings.push({
      kind: less === more ? 'other_values' : `missing_in_${lacking}`,
      subject: `${type} ${stream}`,
      what:
        less === more
          ? `${plural(more, 'row')} in both, with other values`
          : `${lacking} lacks ${more - less} of ${more} rows`,
      severity: less === more ? 'high' : severityOfCompleteness((100 * less) / more),
      evidence: contentsQuery(config.hotDatabase, type, replicated),
    });
  }
  return findings;
}

export const storageDelay: Check = {
  name: 'storage delay',
  zh: '入库延迟',
  question: 'How long does a row take from its socket to hot?',
  limit: ({ storage_delay_minutes }) => `${storage_delay_minutes} min`,
  fix: 'journalctl -u marketprism-store; curl -s http://127.0.0.1:8085/health',
  standsOn: ['nats', 'hot', 'store'],
  async ask(context) {
    const findings: Finding[] = [];
    let worst = 0;
    for (const type of MARKET_TYPES) {
      const query = `SELECT ${STREAM}, max(toUnixTimestamp64Milli(created_at) - intDiv(toUnixTimestamp64Micro(received_at), 1000)) FROM ${context.config.hotDatabase}.${TABLES[type].name} WHERE ${within(context)} AND NOT match(data_source, '^(backfill|repair):') GROUP BY ${STREAM}`;
      for (const cells of await selectText(context.hot, query, SETTINGS)) {
        const delay = Number(cells[3]);
        worst = Math.max(worst, delay);
        if (delay <= context.limits.storage_delay_minutes * MINUTE_MS) continue;
        const what = `up to ${Math.round(delay / MINUTE_MS)} min`;
        findings.push({ kind: 'late', subject: subject(type, cells), what, severity: 'medium', evidence: query });
      }
    }
    return { figure: `at most ${(worst / 1000).toFixed(1)} s`, findings };
  },
};
