/** Whether the trades of a minute add up to what the venue itself says was traded in it. */
import { request } from 'undici';
import { CANDLES, MOST_CANDLES, type VolumeCandle } from '../../exchanges/candles.ts';
import { exchangeModule } from '../../exchanges/index.ts';
import { selectText } from '../clickhouse.ts';
import { at, ms, STREAM } from '../gap_rows.ts';
import { pause } from '../pause.ts';
import type { Exchange } from '../rows.ts';
import { type Check, type Context, type Finding, NotApplicable } from './check.ts';
import { plural, SETTINGS, subject } from './rows.ts';

const MINUTE_MS = 60_000;
/** A minute is compared when it has been over for so long: rows are on their way, and venues finish their candles. */
const SETTLED_MS = 2 * MINUTE_MS;
const ANSWER_WITHIN_MS = 10_000;
/** OKX counts its limit in windows of two seconds; the others’ are so wide that they are not met by this. */
const LIMIT_WINDOW_MS = 2100;
const MOST_TRIES = 4;
/** Of the last minutes so many: more are the business of a time that is asked for with --from and --to. */
const MOST_MINUTES = 60;
/** Beyond this it is no rounding and no trade more or less, but another unit. */
const OTHER_UNIT_SHARE = 0.5;

interface Minutes {
  exchange: Exchange;
  cells: string[];
  /** The venue's own id. */
  instrument: string;
  /** Base units by start of the minute. */
  volumes: Map<number, number>;
  /** The first row that there is at all, ms. */
  first: number;
}

export const candles: Check = {
  name: 'candles',
  zh: 'K 线核对',
  question: 'Is as much traded, by our rows, as the venue’s own one-minute candles say?',
  limit: ({ volume_off_percent }) => `${volume_off_percent} % of a stream’s volume, minutes with a gap left out`,
  fix: 'repair.ts --only refetch --exchange X --symbol S takes the trades from the venue again',
  standsOn: ['hot'],
  async ask(context) {
    const { config, limits } = context;
    const to = Math.floor((Math.min(context.to, context.now) - SETTLED_MS) / MINUTE_MS) * MINUTE_MS;
    const most = Math.min(MOST_MINUTES, MOST_CANDLES);
    const from = Math.max(Math.ceil(context.from / MINUTE_MS) * MINUTE_MS, to - most * MINUTE_MS);
    if (from >= to) throw new NotApplicable('no minute of the time is over');
    const streams = await ownMinutes(context, from, to);
    const asked = streams.filter(({ exchange }) => config.mode === 'live' || config.endpoints[exchange] !== undefined);
    if (asked.length === 0)
      throw new NotApplicable(streams.length === 0 ? 'no trades of whole minutes' : 'a demo has no venue to ask');
    const gaps = await gapMinutes(context);
    const findings: Finding[] = [];
    let minutes = 0;
    for (const stream of asked) {
      const { url, body, volumes } = await venueMinutes(context, stream, from, to - MINUTE_MS);
      const evidence = body === undefined ? url : `${url} ${body}`;
      if (volumes === null || volumes.size === 0) {
        const what = 'it is not listed any more, or under another name, or the venue keeps none of this time';
        findings.push({
          kind: 'no_candles',
          subject: subject('trade', stream.cells),
          what,
          severity: 'hint',
          evidence,
        });
        continue;
      }
      // Venues keep so many candles, and no more: before the first one nothing is known.
      const oldest = Math.min(...volumes.keys());
      let [own, venue] = [0, 0];
      for (let start = from; start < to; start += MINUTE_MS) {
        if (start < oldest || start <= stream.first || gaps.has(`${stream.cells.join(' ')} ${start}`)) continue;
        minutes += 1;
        own += stream.volumes.get(start) ?? 0;
        venue += volumes.get(start) ?? 0;
      }
      const off = venue === 0 && own === 0 ? 0 : Math.abs(own / venue - 1);
      if (off <= limits.volume_off_percent / 100) continue;
      findings.push({
        kind: 'other_volume',
        subject: subject('trade', stream.cells),
        what: `${own.toPrecision(8)} traded by our rows, ${venue.toPrecision(8)} by the venue’s candles`,
        severity: off > OTHER_UNIT_SHARE ? 'high' : 'medium',
        evidence,
      });
    }
    // Nothing compared is no clean answer.
    if (minutes === 0) throw new NotApplicable('no whole minute since the first trade is over');
    return { figure: `${plural(asked.length, 'stream')}, ${plural(minutes, 'minute')}`, findings };
  },
};

/** By stream, what our rows say: of spot and perpetuals, whose instruments the venues have candles of under the id in the rows. */
async function ownMinutes({ hot, config }: Context, from: number, to: number): Promise<Minutes[]> {
  const table = `${config.hotDatabase}.trades`;
  const query =
    `SELECT ${STREAM}, any(instrument), toString(toUnixTimestamp(toStartOfMinute(timestamp)) * 1000) AS minute, toString(sum(quantity)) FROM ` +
    // What is doubled is told by another check.
    `(SELECT * FROM ${table} WHERE timestamp >= ${at(from)} AND timestamp < ${at(to)} AND market_type IN ('spot', 'perpetual') LIMIT 1 BY ${STREAM}, trade_id) GROUP BY ${STREAM}, minute ORDER BY ${STREAM}`;
  const firsts = new Map(
    (await selectText(hot, `SELECT ${STREAM}, ${ms('min(timestamp)')} FROM ${table} GROUP BY ${STREAM}`, SETTINGS)).map(
      ([exchange, market, symbol, first]) => [`${exchange} ${market} ${symbol}`, Number(first)],
    ),
  );
  const streams = new Map<string, Minutes>();
  for (const [exchange, market, symbol, instrument, minute, volume] of await selectText(hot, query, SETTINGS)) {
    const cells = [exchange!, market!, symbol!];
    const key = cells.join(' ');
    const stream = streams.get(key) ?? {
      ...{ exchange: exchange as Exchange, cells, instrument: instrument!, volumes: new Map<number, number>() },
      first: firsts.get(key)!,
    };
    stream.volumes.set(Number(minute), Number(volume));
    streams.set(key, stream);
  }
  return [...streams.values()];
}

/** Minutes of which it is known that trades are missing. */
async function gapMinutes({ hot, config, from, to }: Context): Promise<Set<string>> {
  const query =
    `SELECT ${STREAM}, ${ms('from_time')}, ${ms('to_time')} FROM ${config.hotDatabase}.gaps_now ` +
    `WHERE data_type = 'trade' AND status != 'filled' AND to_time >= ${at(from)} AND from_time < ${at(to)}`;
  const minutes = new Set<string>();
  for (const [exchange, market, symbol, first, last] of await selectText(hot, query, SETTINGS)) {
    const end = Math.min(Number(last), to);
    for (
      let start = Math.floor(Math.max(Number(first), from) / MINUTE_MS) * MINUTE_MS;
      start <= end;
      start += MINUTE_MS
    )
      minutes.add(`${exchange} ${market} ${symbol} ${start}`);
  }
  return minutes;
}

/** Volumes are null where the venue does not know the instrument. @throws when it does not answer: what could not be compared is not equal */
async function venueMinutes({ config }: Context, { exchange, instrument }: Minutes, from: number, last: number) {
  const source = CANDLES[exchange];
  const { path, body } = source.request(instrument, from, last);
  const url = `${config.endpoints[exchange]?.rest ?? exchangeModule(exchange).hosts.rest}${path}`;
  const ask = () =>
    request(url, {
      method: body === undefined ? 'GET' : 'POST',
      ...(body === undefined ? {} : { body, headers: { 'content-type': 'application/json' } }),
      headersTimeout: ANSWER_WITHIN_MS,
      bodyTimeout: ANSWER_WITHIN_MS,
    }).catch((error: Error & { code?: string }) => {
      throw new Error(`${exchange} does not answer: ${error.code ?? error.message}`);
    });
  let answer = await ask();
  for (let tries = 1; answer.statusCode === 429 && tries < MOST_TRIES; tries += 1) {
    await answer.body.dump();
    await pause(LIMIT_WINDOW_MS);
    answer = await ask();
  }
  const text = await answer.body.text();
  if (answer.statusCode === 400 || answer.statusCode === 404) return { url, body, volumes: null };
  if (answer.statusCode !== 200) throw new Error(`${exchange} answers ${answer.statusCode}: ${text.slice(0, 100)}`);
  let found: VolumeCandle[];
  try {
    found = source.read(JSON.parse(text));
  } catch {
    throw new Error(`${exchange} answers ${path} with what are no candles: ${text.slice(0, 100)}`);
  }
  return { url, body, volumes: new Map(found.map(({ start, volume }) => [start, volume])) };
}
