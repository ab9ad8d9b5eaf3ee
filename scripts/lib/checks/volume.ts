/** Whether as much comes as on other days at this hour. */
import { selectText } from '../clickhouse.ts';
import { at, STREAM } from '../gap_rows.ts';
import { type DataType, TABLES } from '../rows.ts';
import { type Check, type Context, type Finding, NotApplicable } from './check.ts';
import { plural, SETTINGS, subject } from './rows.ts';

const DAY_MS = 86_400_000;
/** Earlier days that are looked at, as long as the time itself is no longer than one; else so many spans like it. */
const EARLIER_DAYS = 7;
const EARLIER_SPANS = 2;
/** Hot has everything of the last two days. */
const HOT_HAS_MS = 2 * DAY_MS;
/** Below this an hour may have so few that chance decides. */
const ENOUGH_ROWS = 100;
/** What comes all the time. Other types come by the clock, which freshness and gaps watch, or by chance. */
const TYPES: DataType[] = ['trade', 'orderbook', 'orderbook_update'];

export const volume: Check = {
  name: 'volume',
  zh: '数据量',
  question: 'Do as many rows come as at the same time of earlier days?',
  limit: ({ volume_times }) => `between 1/${volume_times} and ${volume_times} times the median of earlier days`,
  fix: 'journalctl -u marketprism-collector; compare with the market: a crash or a listing may explain it',
  standsOn: ['nats', 'hot', 'cold', 'collector', 'store'],
  async ask(context) {
    const findings: Finding[] = [];
    let compared = 0;
    for (const type of TYPES) {
      const present = await presentRows(context, type);
      const earlier = await earlierRows(context, type);
      for (const [stream, counts] of earlier) {
        const usual = median(counts);
        if (usual < ENOUGH_ROWS) continue;
        compared += 1;
        const now = present.get(stream) ?? 0;
        if (now >= usual / context.limits.volume_times && now <= usual * context.limits.volume_times) continue;
        const isMore = now > usual;
        findings.push({
          kind: isMore ? 'too_many' : 'too_few',
          subject: subject(type, stream.split(' ')),
          what: `${plural(now, 'row')}, where ${plural(counts.length, 'earlier day')} had ${Math.round(usual)} in the median`,
          severity: 'medium',
          evidence: countQuery(
            context.config.hotDatabase,
            type,
            `timestamp >= ${at(context.from)} AND timestamp < ${at(context.to)}`,
          ),
        });
      }
    }
    if (compared === 0) throw new NotApplicable('no earlier day has rows at this time');
    return { figure: `${plural(compared, 'stream')} compared`, findings };
  },
};

function countQuery(database: string, type: DataType, where: string): string {
  return `SELECT ${STREAM}, count() FROM ${database}.${TABLES[type].name} WHERE ${where} GROUP BY ${STREAM}`;
}

/** Rows of the time by stream. */
async function presentRows(context: Context, type: DataType): Promise<Map<string, number>> {
  const { hot, cold, config, from, to, now } = context;
  const where = `timestamp >= ${at(from)} AND timestamp < ${at(to)}`;
  const isInHot = from > now - HOT_HAS_MS;
  const query = countQuery(isInHot ? config.hotDatabase : config.coldDatabase, type, where);
  return new Map(
    (await selectText(isInHot ? hot : cold, query, SETTINGS)).map(([exchange, market, symbol, count]) => [
      `${exchange} ${market} ${symbol}`,
      Number(count),
    ]),
  );
}

/** Rows of the same time of each earlier day that a stream had any in. */
async function earlierRows({ cold, config, from, to }: Context, type: DataType): Promise<Map<string, number[]>> {
  const days = Math.max(Math.ceil((to - from) / DAY_MS), 1);
  const spans = days === 1 ? EARLIER_DAYS : EARLIER_SPANS;
  const counts = new Map<string, number[]>();
  for (let back = 1; back <= spans; back += 1) {
    const shift = back * days * DAY_MS;
    const where = `timestamp >= ${at(from - shift)} AND timestamp < ${at(to - shift)}`;
    const query = `SELECT ${STREAM}, count() FROM ${config.coldDatabase}.${TABLES[type].name} WHERE ${where} GROUP BY ${STREAM}`;
    for (const [exchange, market, symbol, count] of await selectText(cold, query, SETTINGS)) {
      const stream = `${exchange} ${market} ${symbol}`;
      counts.set(stream, [...(counts.get(stream) ?? []), Number(count)]);
    }
  }
  return counts;
}

function median(values: number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
