/** What can be mended, in the order in which it is: each kind says what it would do, and does it through a session. */
import { join } from 'node:path';
import type { Context } from '../checks/check.ts';
import { undeclaredHoles } from '../checks/rows.ts';
import { IMPOSSIBLE, MAY_BE_ZERO } from '../checks/values.ts';
import { UsageError } from '../cli.ts';
import { selectText } from '../clickhouse.ts';
import { contentHash } from '../contents.ts';
import { badFiles } from '../deadletter.ts';
import { replayLetters } from '../deadletter_replay.ts';
import { TRADES } from '../gap_finder.ts';
import { type Cause, gapRow, ms, STREAM } from '../gap_rows.ts';
import { createLogger } from '../log.ts';
import { pause } from '../pause.ts';
import { type DataType, type Exchange, type MarketType, TABLES } from '../rows.ts';
import { BROUGHT_BACK_MS, type Difference, differences, inScope, type Scope } from './differences.ts';
import type { RepairName } from './names.ts';
import { inWindow, LIMITS, named, nameSql, type Place, quoted, tableOf, type Window } from './rows.ts';
import { COPIES, type Session } from './session.ts';

const HOUR_MS = 3_600_000;
/** SQL: rows of one step are of one stream and hour. */
const HOUR = `intDiv(toUnixTimestamp64Milli(timestamp), ${HOUR_MS}) AS hour`;
const LOOK_AGAIN_MS = 500;
/** What goes wrong is told by the repair, in words. */
const SILENT = createLogger('repair', 'silent');

/** What a repair is given. */
export interface Patient {
  hot: Place;
  cold: Place;
  context: Context;
  scope: Scope;
  /** Which tier is right where both are possible. */
  trust: 'hot' | 'cold' | null;
  /** How long gaps are waited for that the collectors fill, ms. */
  fillMs: number;
  /** Of the present state; emptied by who changes it. */
  known: { differences?: Promise<Difference[]> };
}

/** Something that can be done. */
export interface Task {
  /** Such as `trade okx_spot spot BTC-USDT`. */
  subject: string;
  what: string;
  rows: number;
  /** @returns what could not be done, or null */
  run(session: Session): Promise<string | null>;
}

/** Something that is wrong, and that this cannot mend. */
export interface Problem {
  subject: string;
  problem: string;
}

export interface Repair {
  name: RepairName;
  what: string;
  /** Only when it is named. */
  onlyNamed?: boolean;
  plan(patient: Patient): Promise<(Task | Problem)[]>;
}

/** Names by window, of one stream. */
interface Part {
  window: Window;
  names: string[];
}

const duplicates: Repair = {
  name: 'duplicates',
  what: 'rows that are there more than once and say the same: the first stays',
  async plan({ hot, cold, scope }) {
    const found: (Task | Problem)[] = [];
    for (const place of [hot, cold]) {
      for (const type of scope.types) {
        const where = inScope(scope, true);
        const copies = `SELECT ${STREAM}, ${HOUR}, ${nameSql(type)} AS name, ${contentHash(type)} AS hash, count() AS copies FROM ${tableOf(place, type)} WHERE ${where} GROUP BY ${STREAM}, hour, name, hash`;
        const query = `SELECT ${STREAM}, hour, name, sum(copies), count() FROM (${copies}) GROUP BY ${STREAM}, hour, name HAVING sum(copies) > 1`;
        const rows = await selectText(place.client, query, LIMITS);
        const proven = rows.filter(([, , , , , , hashes]) => hashes === '1');
        for (const [subject, parts] of byStream(type, proven)) {
          const more = proven.filter((row) => subjectOf(type, row) === subject);
          found.push({
            subject,
            what: `taken out of ${place.tier}`,
            rows: more.reduce((sum, row) => sum + Number(row[5]) - 1, 0),
            run: (session) => each(parts, ({ window, names }) => session.remove(place, type, window, names, COPIES)),
          });
        }
        for (const [subject, parts] of byStream(
          type,
          rows.filter((row) => !proven.includes(row)),
        )) {
          const names = parts.flatMap((part) => part.names);
          const problem = `${names.length} in ${place.tier} that are there with different values: which is right is not proven`;
          found.push({ subject, problem });
        }
        found.push(...(await keysAtTwoTimes(place, type, where)));
      }
    }
    return found;
  },
};

/** A key that is there at two times is doubled, too; these rows do not say the same. */
async function keysAtTwoTimes(place: Place, type: DataType, where: string): Promise<Problem[]> {
  const { key } = TABLES[type];
  if (key.includes('timestamp')) return [];
  const keys = `SELECT ${STREAM} FROM ${tableOf(place, type)} WHERE ${where} GROUP BY ${STREAM}, ${key.join(', ')} HAVING uniqExact(timestamp) > 1`;
  const rows = await selectText(place.client, `SELECT ${STREAM}, count() FROM (${keys}) GROUP BY ${STREAM}`, LIMITS);
  return rows.map((row) => ({
    subject: subjectOf(type, row),
    problem: `${row[3]} keys in ${place.tier} that are there at several times: which is right is not proven`,
  }));
}

const impossible: Repair = {
  name: 'impossible',
  what: 'rows that cannot be right (prices not above zero, crossed books, times to come): taken out, kept in the journal',
  async plan({ hot, cold, scope }) {
    const found: Task[] = [];
    for (const place of [hot, cold]) {
      for (const { types, condition, what } of IMPOSSIBLE) {
        for (const type of types.filter((each) => scope.types.includes(each))) {
          const query = `SELECT ${STREAM}, ${HOUR}, ${nameSql(type)} FROM ${tableOf(place, type)} WHERE ${inScope(scope, true)} AND (${condition})`;
          for (const [subject, parts] of byStream(type, await selectText(place.client, query, LIMITS))) {
            found.push({
              subject,
              what: `with ${what}: taken out of ${place.tier}`,
              rows: countOf(parts),
              run: (session) =>
                each(parts, ({ window, names }) => session.remove(place, type, window, names, `(${condition})`)),
            });
          }
        }
      }
    }
    return found;
  },
};

const different: Repair = {
  name: 'different',
  what: 'rows that hot and cold tell differently: the one that is wrong is taken from the other',
  async plan(patient) {
    const { hot, cold, trust, scope } = patient;
    const found: (Task | Problem)[] = [];
    for (const [subject, type, parts] of await differing(patient, 'other')) {
      const right = (await fuller(patient, type, parts)) ?? trust;
      if (right === null) {
        const problem = `${countOf(parts)} rows that hot and cold tell differently, and both may be: --trust hot or --trust cold decides`;
        found.push({ subject, problem });
        continue;
      }
      const old = parts.filter(({ window }) => right === 'cold' && window.from < scope.now - BROUGHT_BACK_MS);
      if (old.length > 0) {
        const problem = `${countOf(old)} rows of hot that are wrong and older than 47 hours: the store would take what is brought back for a copy; hot lets go of them soon`;
        found.push({ subject, problem });
      }
      const young = parts.filter((part) => !old.includes(part));
      if (young.length === 0) continue;
      const wrong = right === 'hot' ? cold : hot;
      found.push({
        subject,
        what: `in ${wrong.tier}: taken from ${right}`,
        rows: countOf(young),
        run: (session) =>
          each(young, async ({ window, names }) => {
            await session.remove(wrong, type, window, names);
            await (right === 'hot' ? session.copyToCold(type, window, names) : session.restore(type, window, names));
          }),
      });
    }
    return found;
  },
};

/** The tier that has values in a column where the other has only zeros or nothing. */
async function fuller({ hot, cold }: Patient, type: DataType, parts: Part[]): Promise<'hot' | 'cold' | null> {
  const columns = TABLES[type].columns.filter(({ kind, name }) => kind === 'decimal' && !MAY_BE_ZERO.has(name));
  if (columns.length === 0) return null;
  const counts = async (place: Place) => {
    const where = parts.map(({ window, names }) => `(${named(type, window, names)})`).join(' OR ');
    const query = `SELECT ${columns.map(({ name }) => `countIf(ifNull(${name}, 0) != 0)`).join(', ')} FROM ${tableOf(place, type)} WHERE ${where}`;
    return (await selectText(place.client, query, LIMITS))[0]!.map(Number);
  };
  const [inHot, inCold] = [await counts(hot), await counts(cold)];
  const isEmptyInHot = inHot.some((count, place) => count === 0 && inCold[place]! > 0);
  const isEmptyInCold = inCold.some((count, place) => count === 0 && inHot[place]! > 0);
  return isEmptyInHot === isEmptyInCold ? null : isEmptyInHot ? 'cold' : 'hot';
}

const missingInHot: Repair = {
  name: 'missing-in-hot',
  what: 'rows that cold has and hot lost: given to the store again',
  async plan(patient) {
    return (await differing(patient, 'missingInHot')).map(([subject, type, parts]) => ({
      subject,
      what: 'brought back into hot from cold',
      rows: countOf(parts),
      run: (session) => each(parts, ({ window, names }) => session.restore(type, window, names)),
    }));
  },
};

const missingInCold: Repair = {
  name: 'missing-in-cold',
  what: 'rows that hot has and cold lost, although they were replicated: copied again',
  async plan(patient) {
    return (await differing(patient, 'missingInCold')).map(([subject, type, parts]) => ({
      subject,
      what: 'copied from hot to cold',
      rows: countOf(parts),
      run: (session) => each(parts, ({ window, names }) => session.copyToCold(type, window, names)),
    }));
  },
};

const holes: Repair = {
  name: 'holes',
  what: 'rows that neither has, and nobody declared: declared, so that the collectors fetch them from the venues',
  async plan({ context, scope, fillMs, hot }) {
    const { silent } = await undeclaredHoles(context);
    const meant = silent.filter(
      ({ exchange, symbol, data_type }) =>
        (scope.exchange === null || exchange === scope.exchange) &&
        (scope.symbol === null || symbol === scope.symbol) &&
        scope.types.includes(data_type as DataType),
    );
    return meant.map((gap) => ({
      subject: `${gap.data_type} ${gap.exchange} ${gap.market_type} ${gap.symbol}`,
      what: `${gap.from_id} to ${gap.to_id}: declared, to be fetched from the venue`,
      rows: Number(gap.rows ?? 0),
      run: async (session) => filled(hot, await session.declare(gap), fillMs),
    }));
  },
};

/** Waits until a gap is no longer open. @returns what is left of it, or null */
async function filled(hot: Place, gap_id: string, limitMs: number): Promise<string | null> {
  const query = `SELECT toString(status), ifNull(toString(filled_rows), '0'), ifNull(reason, '') FROM ${hot.database}.gaps_now WHERE gap_id = ${quoted(gap_id)}`;
  for (let waited = 0; ; waited += LOOK_AGAIN_MS) {
    const [[status, rows, reason] = []] = await selectText(hot.client, query, LIMITS);
    if (status === 'filled') return null;
    if (status === 'unfillable') return `the venue gave ${rows}: ${reason}`;
    if (waited >= limitMs) return `declared, and not filled within ${limitMs / 1000} s: the collectors go on`;
    await pause(LOOK_AGAIN_MS);
  }
}

const letters: Repair = {
  name: 'dead-letters',
  what: 'rows that could not be stored: published again; lines that cannot be read are put aside',
  async plan({ context: { config } }) {
    const { dataDir, mode } = config;
    const found: Task[] = [];
    const { files, replayed, bad } = await replayLetters({ dataDir, mode, nats: null, log: SILENT });
    if (files > 0) {
      found.push({
        subject: 'dead letters',
        what: `of ${files} files published again; ${bad} lines that cannot be read put aside`,
        rows: replayed,
        run: (session) => session.replay(),
      });
    }
    for (const { directory, name } of badFiles(dataDir)) found.push(aside(join(directory, name)));
    return found;
  },
};

/** A file that only a person can read goes to the journal, where it is kept. */
function aside(path: string): Task {
  return {
    subject: path,
    what: 'lines that no replay could read: put aside',
    rows: 0,
    run: async (session) => {
      session.putAside(path);
      return null;
    },
  };
}

const refetch: Repair = {
  name: 'refetch',
  what: 'trades of --exchange and --symbol, whatever they say: taken out and fetched anew from the venue; what it no longer serves is put back',
  onlyNamed: true,
  async plan({ hot, cold, scope, fillMs }) {
    if (scope.exchange === null || scope.symbol === null) throw new UsageError('refetch needs --exchange and --symbol');
    const query = `SELECT ${STREAM}, any(instrument), toString(min(id)), toString(max(id)), ${ms('min(timestamp)')}, ${ms('max(timestamp)')}, count() FROM (SELECT *, ${TRADES.number} AS id FROM ${tableOf(hot, 'trade')} WHERE ${inScope(scope)}) WHERE id > 0 GROUP BY ${STREAM}`;
    const found: (Task | Problem)[] = [];
    for (const [exchange, market_type, symbol, instrument, ...rest] of await selectText(hot.client, query, LIMITS)) {
      const [from_id, to_id, from_time, to_time, count] = rest as [string, string, string, string, string];
      const stream = { exchange: exchange as Exchange, market_type: market_type as MarketType, symbol: symbol! };
      const subject = `trade ${exchange} ${market_type} ${symbol}`;
      if (!TRADES.covers(stream)) {
        found.push({ subject, problem: 'its venue serves no past trades by id' });
        continue;
      }
      const hole = {
        ...{ stream: { ...stream, instrument: instrument! }, data_type: 'trade', from_id, to_id },
        ...{ from_time: Number(from_time), to_time: Number(to_time), cause: 'missing_ids' as Cause },
        ...{ status: 'open' as const, rows: Number(BigInt(to_id) - BigInt(from_id)) + 1, reason: null },
      };
      const window = { ...stream, from: hole.from_time, to: hole.to_time + 1 };
      const run = async (session: Session) => {
        const first = session.journal.next;
        for (const place of [hot, cold]) {
          const names = await selectText(
            place.client,
            `SELECT ${nameSql('trade')} FROM ${tableOf(place, 'trade')} WHERE ${inWindow(window)}`,
            LIMITS,
          );
          await session.remove(place, 'trade', window, new Set(names.map(([name]) => name!)));
        }
        const gap = gapRow({ dataSource: session.source }, Date.now(), hole);
        const left = await filled(hot, await session.declare(gap), fillMs);
        const back = await putBackAbsent(session, first, hot);
        return back === 0 ? null : `${back} rows were put back as they were (${left ?? 'the venue did not give them'})`;
      };
      found.push({ subject, what: `${from_id} to ${to_id} fetched anew from the venue`, rows: Number(count), run });
    }
    return found;
  },
};

/** Rows that were taken out since a step, and that hot has not got again, are put back into both. @returns how many hot lacked */
async function putBackAbsent(session: Session, since: number, hot: Place): Promise<number> {
  let back = 0;
  for (const step of session.journal.steps) {
    if (step.op !== 'remove' || step.n < since) continue;
    back += await session.putBack(step, hot);
  }
  return back;
}

/** In the order in which they are done: what comes later stands on what came before. */
export const REPAIRS: Repair[] = [
  duplicates,
  impossible,
  refetch,
  different,
  missingInHot,
  missingInCold,
  holes,
  letters,
];

async function differing(
  { hot, cold, scope, known }: Patient,
  member: 'missingInHot' | 'missingInCold' | 'other',
): Promise<[string, DataType, Part[]][]> {
  known.differences ??= differences(hot, cold, scope);
  const streams = new Map<string, [string, DataType, Part[]]>();
  for (const { type, window, [member]: names } of await known.differences) {
    if (names.length === 0) continue;
    const subject = `${type} ${window.exchange} ${window.market_type} ${window.symbol}`;
    const [, , parts] = streams.get(subject) ?? [subject, type, []];
    parts.push({ window, names });
    streams.set(subject, [subject, type, parts]);
  }
  return [...streams.values()];
}

/** @param rows cells: the stream, the hour, the name, and others */
function byStream(type: DataType, rows: string[][]): Map<string, Part[]> {
  const streams = new Map<string, Part[]>();
  const windows = new Map<string, Part>();
  for (const row of rows) {
    const [exchange, market_type, symbol, hour, name] = row as [string, string, string, string, string];
    const key = [exchange, market_type, symbol, hour].join(' ');
    let part = windows.get(key);
    if (part === undefined) {
      const from = Number(hour) * HOUR_MS;
      part = { window: { exchange, market_type, symbol, from, to: from + HOUR_MS }, names: [] };
      windows.set(key, part);
      const subject = subjectOf(type, row);
      streams.set(subject, [...(streams.get(subject) ?? []), part]);
    }
    part.names.push(name);
  }
  return streams;
}

function subjectOf(type: DataType, [exchange, market_type, symbol]: string[]): string {
  return `${type} ${exchange} ${market_type} ${symbol}`;
}

function countOf(parts: Part[]): number {
  return parts.reduce((sum, { names }) => sum + names.length, 0);
}

async function each(parts: Part[], work: (part: Part) => Promise<unknown>): Promise<null> {
  for (const part of parts) await work(part);
  return null;
}
