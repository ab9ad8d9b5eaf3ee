const USAGE = `
correlation_alert.ts: tells which coins of Hyperliquid have left BTC: for weeks they moved with it, and in the last day they do so no longer.

Usage:   npx tsx scripts/correlation_alert.ts [--mode monitor|once] [--once] [--interval 3600] [--coin SOL] [--timeframes 1m,5m]
           [--periods 1d,7d,30d,60d] [--significant 0.05]
Example: npx tsx scripts/correlation_alert.ts --mode monitor --interval 1800 --timeframes 5m --periods 1d,7d
         npx tsx scripts/correlation_alert.ts --once --coin SOL
         npx tsx scripts/correlation_alert.ts --stdin --timeframe 5m < candles.ndjson

Flags:
  --mode MODE       monitor (default): a round now and then every --interval seconds; once: one round
  --once            the same as --mode once: exit 1 when something could not be done
  --interval S      seconds from one round to the next, 10 to 86400 (default 3600)
  --coin COIN       this coin alone, beside BTC
  --timeframes LIST of 1m, 5m, 15m, 1h (default 1m,5m)
  --periods LIST    of 1d, 7d, 30d, 60d (default: all); the rule needs 1d and a longer one
  --significant P   a lag counts for the rule only where noise has such a correlation with a chance of P at most (MARKETPRISM_CORRELATION_SIGNIFICANT)
  --stdin           reads {"symbol","timestamp","close"}, one candle a line, in any order; writes a row for each coin and period, then anomalies
  --timeframe T     of --stdin: how long its candles are (default 5m)

The rule, over all timeframes together: long = the largest correlation over 7d, 30d and 60d, short = the smallest over 1d; an anomaly is long > 0.6
and short < 0.3 and (long - short > 0.5 or a lag above 0 in a 1d). Each correlation is the largest over lags of 0 to 48 candles. With --stdin, BTC is the
symbol BTC or one that begins with BTC- (the coin stands before the dash), and the newest candle of BTC is the last that counts.

Candles are kept in the table candles of the signals' database, results in correlations. The venue serves the newest 5000 candles: 3.5 days of 1m, 17 of 5m;
longer periods have no correlation, and say so, until our own candles reach so far back. The first round of all coins takes as long as the venue's limit
of requests makes it take, about 45 minutes for 200 coins; later ones take what they compute.
Anomalies: DATA/correlation/correlation_alerts.jsonl, begin and end each once; people are told through monitor.ts.

Environment: MARKETPRISM_CORRELATION_LONG (0.6), _SHORT (0.3), _DIFF (0.5), _SIGNIFICANT (unset: each lag counts), CLICKHOUSE_URL, MARKETPRISM_SIGNALS_DATABASE,
MARKETPRISM_API_TOKEN (unset: anomalies are written and nobody is told), MONITOR_HTTP_PORT (8082), MARKETPRISM_LANG (en, zh), MARKETPRISM_DATA_DIR, LOG_LEVEL.
`;

import { flags, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import { CorrelationAlerter, type CorrelationOptions } from './lib/correlation/alerter.ts';
import { messageOf } from './lib/correlation/alerts.ts';
import { BASE, PERIOD_NAMES, SHORT_PERIOD, TIMEFRAME_NAMES } from './lib/correlation/periods.ts';
import { coinOf, STDIN_CANDLE, StdinCorrelations } from './lib/correlation/stdin.ts';
import { runDesk } from './lib/desk/service.ts';
import { transformStdin } from './lib/desk/stdin.ts';

/** From a round that is always under way to one a day. */
const INTERVAL_SECONDS = { least: 10, most: 86_400 };

const OPTIONS = {
  mode: { type: 'string', default: 'monitor' },
  once: { type: 'boolean', default: false },
  interval: { type: 'string', default: '3600' },
  coin: { type: 'string' },
  timeframes: { type: 'string', default: '1m,5m' },
  periods: { type: 'string', default: PERIOD_NAMES.join(',') },
  significant: { type: 'string' },
  stdin: { type: 'boolean', default: false },
  timeframe: { type: 'string', default: '5m' },
} as const;

/** Names of a list, each once, in the order of `known`. @throws UsageError */
function listOf<T extends string>(flag: string, text: string, known: readonly T[]): T[] {
  const given = text.split(',').map((each) => each.trim());
  const wrong = given.find((each) => !known.some((name) => name === each));
  if (wrong !== undefined) throw new UsageError(`${flag} takes names of ${known.join(', ')}, not "${wrong}"`);
  return known.filter((name) => given.includes(name));
}

/** @throws UsageError */
function chanceOf(text: string | undefined, otherwise: number | null): number | null {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!(value > 0 && value < 1)) throw new UsageError(`--significant takes a chance such as 0.05, not "${text}"`);
  return value;
}

/** @throws UsageError */
function otherCoin(text: string): string {
  const coin = coinOf(text);
  if (coin === BASE) throw new UsageError(`--coin takes a coin to be compared with ${BASE}, not "${text}"`);
  return coin;
}

async function main(): Promise<number> {
  const given = flags(USAGE, OPTIONS);
  if (given.mode !== 'monitor' && given.mode !== 'once')
    throw new UsageError(`--mode takes monitor or once, not "${given.mode}"`);
  const config = loadConfig();
  const limits = { ...config.correlation, significant: chanceOf(given.significant, config.correlation.significant) };
  const periods = listOf('--periods', given.periods, PERIOD_NAMES);
  if (given.stdin) {
    const [timeframe] = listOf('--timeframe', given.timeframe, TIMEFRAME_NAMES);
    const correlations = new StdinCorrelations(timeframe!, periods, limits);
    const tell = (alert: Parameters<typeof messageOf>[0]) => messageOf(alert, config.language).text;
    return transformStdin(
      STDIN_CANDLE,
      (candle) => correlations.take(candle),
      () => correlations.end(tell),
    );
  }
  if (!periods.includes(SHORT_PERIOD) || periods.length < 2)
    throw new UsageError(`--periods takes ${SHORT_PERIOD} and at least one longer one: the rule compares them`);
  const interval = wholeNumber('--interval', given.interval, INTERVAL_SECONDS.least, INTERVAL_SECONDS.most);
  const isOnce = given.once || given.mode === 'once';
  const options: CorrelationOptions = {
    ...{
      isOnce,
      intervalMs: interval * 1000,
      coin: given.coin === undefined ? null : otherCoin(given.coin),
      periods,
      limits,
    },
    timeframes: listOf('--timeframes', given.timeframes, TIMEFRAME_NAMES),
    terminal: isOnce || process.stdout.isTTY ? process.stdout : null,
  };
  return runDesk('correlation_alert', isOnce, (context) => CorrelationAlerter.open(context, options));
}

runAsScript(import.meta.url, main);
