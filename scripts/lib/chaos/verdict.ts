/**
 * What a run came to: every key that the venues sent against hot and what is declared missing, and hot against cold, stream by stream.
 * Computed from rows and keys, not from what any service says of itself.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import { request } from 'undici';
import { selectText } from '../clickhouse.ts';
import { contentsByStream, NOTHING } from '../contents.ts';
import { LIQUIDATION_KEY, plainKey, STREAMED_UPDATE } from '../ledger.ts';
import { holesOf, seriesOf } from '../reading_holes.ts';
import { DATA_TYPES, type DataType, TABLES } from '../rows.ts';

/** A stream's figures. Of sampled types the venues' count means nothing: null. */
export interface StreamFigures {
  exchange: string;
  market_type: string;
  symbol: string;
  data_type: DataType;
  /** Distinct keys that a venue wrote to a subscribed socket. */
  sent: number | null;
  /** Hash of those that are not declared missing, in order; hot must give the same. */
  sent_hash: string | null;
  hot_hash: string | null;
  hot: number;
  hot_unique: number;
  /** Rows of hot that were fetched back. */
  filled: number;
  /** Sent, not in hot, declared missing. */
  gap: number;
  /** Sent, not in hot, and nobody knows. */
  lost: number;
  cold: number;
  cold_unique: number;
  /** Whether the values of all rows are the same in hot and in cold. */
  same: boolean;
}

export interface Verdict {
  streams: StreamFigures[];
  /** What does not balance, each as one line; none: all is well. */
  differences: string[];
}

export interface VerdictOptions {
  client: ClickHouseClient;
  hotDatabase: string;
  coldDatabase: string;
  /** The simulator's address. */
  control: string;
  exchanges: readonly string[];
  /** Data directories, of which the dead letters are counted. */
  dataDirs: string[];
}

/** Types whose every key the simulator knows, and how a row of hot names it. */
const KEYED: { type: DataType; key: string; isStreamed: string }[] = [
  {
    type: 'trade',
    key: "if(exchange = 'deribit_derivatives', ifNull(toString(sequence), ''), trade_id)",
    isStreamed: '1',
  },
  {
    type: 'orderbook_update',
    key: 'toString(last_update_id)',
    isStreamed: STREAMED_UPDATE,
  },
  {
    type: 'liquidation',
    key: LIQUIDATION_KEY,
    isStreamed: '1',
  },
];
/** Shown of many. */
const SHOWN = 5;
const SETTINGS = { max_execution_time: 300 };

interface Gap {
  from: string;
  to: string;
  fromTime: number;
  toTime: number;
  status: string;
  rows: number | null;
  filled: number | null;
}

/** Compares everything. @throws when the database or the simulator cannot be asked */
export async function judge(options: VerdictOptions): Promise<Verdict> {
  const differences: string[] = [];
  const streams: StreamFigures[] = [];
  const sentStreams = await sentBy(options.control);
  for (const type of DATA_TYPES) {
    const { client, hotDatabase, coldDatabase } = options;
    const hot = await contentsByStream(client, hotDatabase, type);
    const cold = await contentsByStream(client, coldDatabase, type);
    const keyed = KEYED.find((each) => each.type === type);
    const names = new Set([...hot.keys(), ...cold.keys()]);
    for (const each of keyed ? sentStreams : []) if (each.data_type === type && each.sent > 0) names.add(nameOf(each));
    for (const name of [...names].sort()) {
      const [exchange, market_type, symbol] = name.split(' ') as [string, string, string];
      const stream = { exchange, market_type, symbol, data_type: type };
      const [inHot, inCold] = [hot.get(name) ?? NOTHING, cold.get(name) ?? NOTHING];
      const keys = keyed ? await compareKeys(options, stream, keyed, differences) : NO_KEYS;
      const figures: StreamFigures = {
        ...stream,
        ...keys,
        hot: inHot.rows,
        hot_unique: inHot.unique,
        cold: inCold.rows,
        cold_unique: inCold.unique,
        same: inHot.rows === inCold.rows && inHot.unique === inCold.unique && inHot.hash === inCold.hash,
      };
      streams.push(figures);
      if (figures.hot !== figures.hot_unique)
        differences.push(`${type} ${name}: ${figures.hot - figures.hot_unique} rows twice in hot`);
      if (figures.cold !== figures.cold_unique)
        differences.push(`${type} ${name}: ${figures.cold - figures.cold_unique} rows twice in cold`);
      if (!figures.same)
        differences.push(`${type} ${name}: hot and cold differ (${figures.hot} and ${figures.cold} rows)`);
    }
  }
  differences.push(...(await readingDifferences(options)), ...(await openGaps(options)), ...deadLetters(options));
  return { streams, differences };
}

interface Stream {
  exchange: string;
  market_type: string;
  symbol: string;
  data_type: string;
}

function nameOf({ exchange, market_type, symbol }: Stream): string {
  return `${exchange} ${market_type} ${symbol}`;
}

const NO_KEYS = { sent: null, sent_hash: null, hot_hash: null, filled: 0, gap: 0, lost: 0 };

/** What was sent of a stream against what hot has of it. */
async function compareKeys(
  options: VerdictOptions,
  stream: Stream & { data_type: DataType },
  { key, isStreamed }: (typeof KEYED)[number],
  differences: string[],
): Promise<Pick<StreamFigures, 'sent' | 'sent_hash' | 'hot_hash' | 'filled' | 'gap' | 'lost'>> {
  const { client, hotDatabase, control } = options;
  const what = `${stream.data_type} ${nameOf(stream)}`;
  const sent = await sentKeys(control, stream);
  const rows = await selectText(
    client,
    `SELECT ${key}, toString(toUnixTimestamp64Milli(timestamp)), startsWith(data_source, 'backfill:') FROM ${hotDatabase}.${TABLES[stream.data_type].name} WHERE ${whereStream(stream)} AND ${isStreamed}`,
    SETTINGS,
  );
  /** By key: event time, ms. */
  const hot = new Map<string, number>();
  const filled = new Set<string>();
  for (const [id, time, isFilled] of rows) {
    hot.set(id!, Number(time));
    if (isFilled === '1') filled.add(id!);
  }
  const gaps = await gapsOf(options, stream);
  const { known, lost } = missing(stream, sent, hot, gaps);
  if (lost.length > 0)
    differences.push(`${what}: ${lost.length} sent, not in hot and not declared missing (${shown(lost)})`);
  const isSent = new Set(sent);
  const strangers = [...hot.keys()].filter((id) => !isSent.has(id) && !filled.has(id));
  // Deribit's liquidations are read again from its history of trades, sent or not.
  const mayBeRead = stream.data_type === 'liquidation' && stream.exchange === 'deribit_derivatives';
  if (strangers.length > 0 && !mayBeRead)
    differences.push(`${what}: ${strangers.length} in hot that were never sent (${shown(strangers)})`);
  if (counts(stream)) differences.push(...holes([...hot.keys()], gaps).map((line) => `${what}: ${line}`));
  const isKnown = new Set(known);
  const sentHash = hashOf(sent.filter((id) => !isKnown.has(id)));
  const hotHash = hashOf([...hot.keys()].filter((id) => isSent.has(id)));
  if (sentHash !== hotHash)
    differences.push(`${what}: the keys of hot (${hotHash}) are not those that were sent (${sentHash})`);
  return {
    sent: sent.length,
    sent_hash: sentHash,
    hot_hash: hotHash,
    filled: [...filled].filter((id) => !isSent.has(id)).length,
    gap: known.length,
    lost: lost.length,
  };
}

/** Whether the keys are numbers that count by one. */
function counts({ exchange, data_type }: Stream): boolean {
  return data_type === 'trade' && exchange !== 'hyperliquid';
}

/** Keys that were sent and are not in hot: those within a declared gap, and the others. */
function missing(
  { exchange, data_type }: Stream,
  sent: string[],
  hot: ReadonlyMap<string, number>,
  gaps: Gap[],
): { known: string[]; lost: string[] } {
  const known: string[] = [];
  const lost: string[] = [];
  const isOrdered = data_type === 'orderbook_update' || counts({ exchange, data_type } as Stream);
  let before = Number.NEGATIVE_INFINITY;
  for (let place = 0; place < sent.length; place += 1) {
    const time = hot.get(sent[place]!);
    if (time !== undefined) {
      before = time;
      continue;
    }
    let end = place;
    while (end < sent.length && !hot.has(sent[end]!)) end += 1;
    const after = end < sent.length ? hot.get(sent[end]!)! : Number.POSITIVE_INFINITY;
    for (const id of sent.slice(place, end)) {
      const isDeclared = gaps.some((gap) =>
        isOrdered
          ? BigInt(gap.from) <= BigInt(id) && BigInt(id) <= BigInt(gap.to)
          : // Keys that do not rise are told by the times of what was sent next to them.
            gap.fromTime <= after && gap.toTime >= before,
      );
      (isDeclared ? known : lost).push(id);
    }
    place = end - 1;
  }
  return { known, lost };
}

/** Holes in numbers that count by one, sent or not: each must be what the gaps say is missing, and nothing else. */
function holes(ids: string[], gaps: Gap[]): string[] {
  const lines: string[] = [];
  const numbers = ids.map(BigInt).sort((one, other) => (one < other ? -1 : 1));
  const absent = new Map<Gap, number>();
  for (let place = 1; place < numbers.length; place += 1) {
    const [from, to] = [numbers[place - 1]! + 1n, numbers[place]! - 1n];
    if (from > to) continue;
    const gap = gaps.find((each) => BigInt(each.from) <= from && to <= BigInt(each.to));
    if (gap === undefined) lines.push(`a hole from ${from} to ${to} that is not declared`);
    else absent.set(gap, (absent.get(gap) ?? 0) + Number(to - from + 1n));
  }
  for (const gap of gaps) {
    const told = (gap.rows ?? 0) - (gap.filled ?? 0);
    if (told !== (absent.get(gap) ?? 0))
      lines.push(
        `the gap from ${gap.from} to ${gap.to} is ${gap.status} with ${told} missing, hot lacks ${absent.get(gap) ?? 0}`,
      );
  }
  return lines;
}

async function gapsOf({ client, hotDatabase }: VerdictOptions, stream: Stream): Promise<Gap[]> {
  const query = [
    'SELECT from_id, to_id, toString(toUnixTimestamp64Milli(from_time)), toString(toUnixTimestamp64Milli(to_time)), toString(status),',
    `toString(rows), toString(filled_rows) FROM ${hotDatabase}.gaps_now WHERE ${whereStream(stream)} AND data_type = '${stream.data_type}'`,
  ].join(' ');
  const number = (text: string) => (text === '\\N' ? null : Number(text));
  return (await selectText(client, query)).map((cells) => {
    const [from, to, fromTime, toTime, status, rows, filled] = cells as [
      string,
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    return {
      from,
      to,
      fromTime: Number(fromTime),
      toTime: Number(toTime),
      status,
      rows: number(rows),
      filled: number(filled),
    };
  });
}

/** Steps without a reading that no gap tells. */
async function readingDifferences({ client, hotDatabase, exchanges }: VerdictOptions): Promise<string[]> {
  const lines: string[] = [];
  const query = (sql: string) => selectText(client, sql, SETTINGS);
  for (const { exchange, series } of seriesOf(exchanges)) {
    for (const [symbol, found] of await holesOf(query, hotDatabase, exchange, series)) {
      const gaps = await query(
        `SELECT from_id, to_id FROM ${hotDatabase}.gaps_now WHERE exchange = '${exchange}' AND symbol = '${symbol}' AND data_type = '${series.type}'`,
      );
      for (const { from, to, steps } of found) {
        const isDeclared = gaps.some(([first, last]) => Number(first) <= from && to <= Number(last));
        if (!isDeclared)
          lines.push(
            `${series.type} ${exchange} ${symbol}: ${steps} readings from ${new Date(from).toISOString()} on are not declared missing`,
          );
      }
    }
  }
  return lines;
}

/** Gaps that are still open: whether they can be filled was not found out. */
async function openGaps({ client, hotDatabase }: VerdictOptions): Promise<string[]> {
  const query = `SELECT data_type, exchange, symbol, from_id, to_id FROM ${hotDatabase}.gaps_now WHERE status = 'open' ORDER BY ALL`;
  return (await selectText(client, query)).map(
    ([type, exchange, symbol, from, to]) =>
      `${type} ${exchange} ${symbol}: the gap from ${from} to ${to} is still open`,
  );
}

/** Rows that could not be stored: with venues that send nothing wrong there are none. */
function deadLetters({ dataDirs }: VerdictOptions): string[] {
  return dataDirs
    .map((dir) => join(dir, 'deadletter'))
    .filter((dir) => existsSync(dir))
    .flatMap((dir) =>
      readdirSync(dir, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.ndjson') && !name.startsWith('done'))
        .map((name) => `dead letters in ${join(dir, name)}`),
    );
}

interface SentStream extends Stream {
  sent: number;
}

async function sentBy(control: string): Promise<SentStream[]> {
  const { text } = await ask(`${control}/ledger`);
  return (JSON.parse(text) as { streams: SentStream[] }).streams;
}

/** A connection that was kept may have been closed by the other side in the same moment: then it is asked once more. */
async function ask(url: string): Promise<{ status: number; text: string }> {
  const once = async () => {
    const { body, statusCode: status } = await request(url);
    return { status, text: await body.text() };
  };
  return once().catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'UND_ERR_SOCKET') throw error;
    return once();
  });
}

/** Keys of a stream in the order in which they were sent. @throws when the simulator does not know all any more */
async function sentKeys(control: string, { exchange, symbol, data_type }: Stream): Promise<string[]> {
  const { status, text } = await ask(`${control}/ledger/keys?${new URLSearchParams({ exchange, symbol, data_type })}`);
  if (status === 404) return [];
  const lines = text.split('\n').filter((line) => line !== '');
  if (status !== 200 || lines[0]?.startsWith('#'))
    throw new Error(`the simulator's keys of ${exchange} ${symbol} ${data_type}: ${lines[0]}`);
  return lines.map(plainKey);
}

function whereStream({ exchange, market_type, symbol }: Stream): string {
  return `exchange = '${exchange}' AND market_type = '${market_type}' AND symbol = '${symbol}'`;
}

/** Of keys in whatever order. */
function hashOf(keys: string[]): string {
  const hash = createHash('sha256');
  for (const key of [...keys].sort()) hash.update(`${key}\n`);
  return hash.digest('hex').slice(0, 16);
}

function shown(keys: string[]): string {
  return keys.slice(0, SHOWN).join(', ') + (keys.length > SHOWN ? ', …' : '');
}

/** Figures by exchange and type as a table for people. */
export function verdictTable(streams: StreamFigures[]): string {
  const head = [
    'exchange',
    'data_type',
    'streams',
    'sent',
    'hot',
    'filled',
    'gap',
    'lost',
    'doubled',
    'cold',
    'values',
  ];
  const groups = new Map<string, StreamFigures[]>();
  for (const each of streams) {
    const name = `${each.exchange}\t${each.data_type}`;
    groups.set(name, [...(groups.get(name) ?? []), each]);
  }
  const lines = [...groups]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, own]) => {
      const sum = (field: (each: StreamFigures) => number) =>
        String(own.reduce((total, each) => total + field(each), 0));
      return [
        ...name.split('\t'),
        String(own.length),
        own.every(({ sent }) => sent === null) ? '-' : sum((each) => each.sent ?? 0),
        sum((each) => each.hot),
        sum((each) => each.filled),
        sum((each) => each.gap),
        sum((each) => each.lost),
        sum((each) => each.hot - each.hot_unique),
        sum((each) => each.cold),
        own.every((each) => each.same) ? 'same' : 'DIFFER',
      ];
    });
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i]!.length)));
  const format = (line: readonly string[]) =>
    line.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
  return [format(head), ...lines.map(format)].join('\n');
}
