/** The environment, validated at start: a wrong value is one clear line and exit 64. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { duration, UsageError } from './cli.ts';
import type { CorrelationLimits } from './correlation/rule.ts';
import { checkProofs } from './crash_points.ts';
import { EXCHANGES, type Exchange } from './rows.ts';
import { STREAM_NAMES, type StreamName } from './streams.ts';

export const MODES = ['live', 'demo'] as const;
export type Mode = (typeof MODES)[number];

/** Hosts of one exchange; paths stay the venue's own. */
export interface Endpoint {
  ws: string;
  rest: string;
}

export interface Config {
  mode: Mode;
  natsUrl: string;
  clickhouseUrl: string;
  coldClickhouseUrl: string;
  clickhouseUser: string;
  clickhousePassword: string;
  /** The cluster that the servers belong to; null: each is one of its own. */
  clickhouseCluster: string | null;
  hotDatabase: string;
  coldDatabase: string;
  signalsDatabase: string;
  /** In demo mode the `demo` folder within the configured one. */
  dataDir: string;
  exchanges: Exchange[];
  /** Pairs as BASE-QUOTE. */
  symbols: string[];
  /** Further instruments by the venues' own ids: dated futures, options. */
  instruments: { exchange: Exchange; id: string }[];
  collectorId: string;
  /** ms of venue time between two orderbook rows; 0: one per applied update. */
  orderbookIntervalMs: number;
  /** How long after a trade Deribit's history is asked whether it was a liquidation, ms; absent: as long as the venue takes to tell. */
  liquidationDelayMs: number | undefined;
  /** A hole in hot is declared once the row after it has been there this long, ms. */
  gapAgeMs: number;
  /** A venue that answers 403 or 451 is asked again after this time, ms. */
  blockedRetryMs: number;
  /** A table whose replication stopped, as cold holds what hot does not say, is looked at again after this time, ms. */
  stoppedRetryMs: number;
  /** From one round of replication to the next; divides a minute. */
  replicationSeconds: number;
  /** Rows in the deadletter whose cause may have passed are tried this often at first, ms. */
  deadletterRetryMs: number;
  ackWaitSeconds: number;
  /** Rows of one instrument wait this long for company in their message, ms: it costs as much latency, and saves a message per row. */
  lingerMs: number;
  /** Rows waiting in memory, by kind: at `high` they leave it, at `emergency` their source is no longer read. */
  watermarks: Record<WatermarkKind, Watermark>;
  /** Saves of the harvester that are under way at once. */
  saveConcurrency: number;
  /** Files of the harvest are kept for so many days. */
  harvestDays: number;
  /** From one checkpoint of the harvester to the next, ms: what is in memory is saved. */
  harvestCheckpointMs: number;
  /** Bound of the files in which rows wait for the broker; absent: 20 GiB or half of the free disk. */
  outboxMaxBytes: number | undefined;
  /** Total bytes for both streams; absent: the documented defaults. */
  streamMaxBytes: number | undefined;
  /** Servers of a cluster that keep each stream; absent: one, and a stream that is there keeps what it has. */
  streamReplicas: number | undefined;
  endpoints: Partial<Record<Exchange, Endpoint>>;
  healthPort: number;
  /** Where the collectors answer that others ask: one, unless exchanges have processes of their own. */
  collectorPorts: number[];
  metricsPort: number;
  storePort: number;
  /** Where the stores answer that others ask: one, unless streams have stores of their own. */
  storePorts: number[];
  /** What this store stores: whole streams, as their numbering has one owner. */
  storeStreams: StreamName[];
  replicatePort: number;
  monitorPort: number;
  webPort: number;
  /** Where the web API listens; elsewhere than on loopback everything needs the token. */
  webHost: string;
  healthGraceSeconds: number;
  /** IANA name: of times that people read, and of their days. */
  timeZone: string;
  language: Language;
  /** Asked of whoever changes something over HTTP; absent: nobody may. */
  apiToken: string | undefined;
  notify: NotifyConfig;
  /** Coins that the desk's signals are about, as OKX names them. */
  deskCoins: string[];
  /** Series of JSONL files are kept for so many days. */
  seriesDays: number;
  /** A minute is a signal when so many coins are topping at once. */
  escapeThreshold: number;
  /** When a coin has left BTC. */
  correlation: CorrelationLimits;
  /** The owner's read-only key of OKX; absent: none is set. */
  okxKey: { key: string; secret: string; passphrase: string } | undefined;
}

/** Who is told of alerts. */
export interface NotifyConfig {
  webhookUrl?: string | undefined;
  slackUrl?: string | undefined;
  larkUrl?: string | undefined;
  /** The secret with which a bot wants its messages signed. */
  larkSecret?: string | undefined;
  dingtalkUrl?: string | undefined;
  dingtalkSecret?: string | undefined;
  smtpUrl?: string | undefined;
  emailTo?: string | undefined;
}

/** Kinds of rows that wait in memory, with the rows at which that becomes much and too much. */
const WATERMARKS = {
  /** The collector: trades, readings, liquidations, gaps. The harvester: trades. */
  prices: { high: 20_000, emergency: 40_000 },
  /** The collector: books and their updates. The harvester: changes of the top five levels. */
  orderbook: { high: 12_000, emergency: 24_000 },
  /** The harvester's derived kinds. */
  ofi: { high: 8000, emergency: 16_000 },
  cvd: { high: 8000, emergency: 16_000 },
  fusion: { high: 5000, emergency: 10_000 },
  events: { high: 5000, emergency: 10_000 },
  features: { high: 8000, emergency: 16_000 },
} as const;
export type WatermarkKind = keyof typeof WATERMARKS;
export interface Watermark {
  high: number;
  emergency: number;
}
const WATERMARK_KINDS = Object.keys(WATERMARKS) as WatermarkKind[];

/** The coins of the original desk. */
const DESK_COINS =
  'BTC,ETH,XRP,BNB,SOL,LTC,DOGE,SUI,TRX,TON,ETC,BCH,HBAR,XLM,FIL,LINK,CRO,DOT,UNI,NEAR,APT,CFX,CRV,STX,LDO,TAO,AAVE';

/** The simulated history tells liquidations after seconds, so that a short run sees some. */
const DEMO_LIQUIDATION_DELAY_MS = 15_000;

/** In a demo's data directory: where its exchanges are. */
export const DEMO_ENDPOINTS = 'endpoints.json';

const identifier = z.string().regex(/^[A-Za-z_]\w*$/, 'takes letters, digits and _');
const url = z.url({ protocol: /^https?$/ });
const port = z.coerce.number().int().min(0).max(65_535);
const correlation = z.coerce.number().min(-1).max(1);
/** Of coincidence: 0 would forbid everything, 1 nothing. */
const chance = z.coerce.number().gt(0).lt(1);
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== ''),
);

const ports = (example: string) =>
  list
    .pipe(z.array(z.string().regex(/^[1-9]\d{1,4}$/, `takes ports such as ${example}`)).min(1))
    .transform((all) => all.map(Number));

/** `LoadCredential=marketprism:/etc/marketprism/credentials` in each unit. */
export const CREDENTIAL_PREFIX = 'marketprism_';

/** Where custom bots of Lark (Feishu) take their messages; the id follows. */
const LARK_BOTS = 'https://open.feishu.cn/open-apis/bot/v2/hook/';

export const LANGUAGES = ['en', 'zh'] as const;
export type Language = (typeof LANGUAGES)[number];

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

const INSTRUMENT = new RegExp(`^(${EXCHANGES.join('|')}):\\S+$`);

const natsUrl = z.string().regex(/^(nats|tls):\/\/\S+$/, 'takes nats://HOST:PORT');

const environment = z.object({
  MARKETPRISM_MODE: z.enum(MODES).default('live'),
  MARKETPRISM_NATS_URL: natsUrl.optional(),
  NATS_URL: natsUrl.optional(),
  CLICKHOUSE_URL: url.default('http://127.0.0.1:8123'),
  MARKETPRISM_COLD_CLICKHOUSE_URL: url.optional(),
  CLICKHOUSE_USER: z.string().default('default'),
  CLICKHOUSE_PASSWORD: z.string().default(''),
  MARKETPRISM_CLICKHOUSE_CLUSTER: z
    .string()
    .regex(/^[A-Za-z_][\w-]*$/, 'takes the name of a cluster in remote_servers: letters, digits, _ and -')
    .optional(),
  MARKETPRISM_HOT_DATABASE: identifier.optional(),
  MARKETPRISM_COLD_DATABASE: identifier.optional(),
  MARKETPRISM_SIGNALS_DATABASE: identifier.optional(),
  MARKETPRISM_DATA_DIR: z.string().min(1).default('data'),
  MARKETPRISM_EXCHANGES: list.pipe(z.array(z.enum(EXCHANGES)).min(1)).optional(),
  MARKETPRISM_SYMBOLS: list
    .pipe(z.array(z.string().regex(/^[A-Z0-9]+-[A-Z0-9]+$/, 'takes pairs such as BTC-USDT,ETH-USDT')).min(1))
    .default(['BTC-USDT', 'ETH-USDT']),
  MARKETPRISM_INSTRUMENTS: list
    .pipe(z.array(z.string().regex(INSTRUMENT, `takes EXCHANGE:ID, such as deribit_derivatives:BTC-27MAR26`)))
    .default([]),
  MARKETPRISM_COLLECTOR_ID: z
    .string()
    .regex(/^[\w.-]{1,64}$/, 'takes up to 64 letters, digits, ., _ and -')
    .default(() => hostname().replace(/[^\w.-]/g, '_')),
  MARKETPRISM_ORDERBOOK_INTERVAL: z.string().default('10s'),
  MARKETPRISM_LIQUIDATION_DELAY: z.string().optional(),
  MARKETPRISM_GAP_AGE: z.string().default('30s'),
  MARKETPRISM_BLOCKED_RETRY: z.string().default('10m'),
  MARKETPRISM_STOPPED_RETRY: z.string().default('5m'),
  MARKETPRISM_REPLICATION_SECONDS: z
    .enum(['1', '2', '3', '5', '6', '10', '12', '15', '20', '30'], {
      error: 'takes seconds that divide a minute: 1, 2, 3, 5, 6, 10, 12, 15, 20 or 30',
    })
    .default('10'),
  MARKETPRISM_DEADLETTER_RETRY: z.string().default('1m'),
  MARKETPRISM_ACK_WAIT_SECONDS: z.coerce.number().min(1).max(3600).default(60),
  MARKETPRISM_LINGER: z.string().default('5ms'),
  SAVE_CONCURRENCY: z.coerce.number().int().min(1).max(16).default(2),
  MARKETPRISM_HARVEST_CHECKPOINT: z.string().default('60s'),
  MARKETPRISM_HARVEST_DAYS: z.coerce.number().int().min(1).max(3650).default(3),
  MARKETPRISM_OUTBOX_MAX_BYTES: z.coerce.number().int().min(1_048_576).optional(),
  MARKETPRISM_STREAM_MAX_BYTES: z.coerce.number().int().min(1_048_576).optional(),
  MARKETPRISM_STREAM_REPLICAS: z
    .enum(['1', '3', '5'], { error: 'takes the number of servers that keep each stream: 1, 3 or 5' })
    .optional(),
  MARKETPRISM_ENDPOINTS: z.string().optional(),
  HEALTH_CHECK_PORT: port.default(8087),
  MARKETPRISM_COLLECTOR_PORTS: ports('8101,8102').optional(),
  METRICS_PORT: port.default(9093),
  HOT_STORAGE_HTTP_PORT: port.default(8085),
  MARKETPRISM_STORE_PORTS: ports('8121,8122').optional(),
  MARKETPRISM_STORE_STREAMS: list.pipe(z.array(z.enum(STREAM_NAMES)).min(1)).optional(),
  COLD_STORAGE_HTTP_PORT: port.default(8086),
  MONITOR_HTTP_PORT: port.default(8082),
  WEB_HTTP_PORT: port.default(5000),
  MARKETPRISM_WEB_HOST: z
    .string()
    .regex(/^[\w.:-]+$/, 'takes an address such as 127.0.0.1 or 0.0.0.0')
    .default('127.0.0.1'),
  HEALTH_GRACE_SECONDS: z.coerce.number().min(0).default(120),
  MARKETPRISM_TIMEZONE: z
    .string()
    .refine(isTimeZone, 'takes the name of a time zone, such as Asia/Shanghai')
    .default('Asia/Shanghai'),
  MARKETPRISM_LANG: z.enum(LANGUAGES).default('en'),
  MARKETPRISM_API_TOKEN: z.string().min(16, 'takes at least 16 characters').optional(),
  MARKETPRISM_WEBHOOK_URL: url.optional(),
  SLACK_WEBHOOK_URL: url.optional(),
  LARKBOT_ID: z
    .string()
    .transform((id) => (id.includes('://') ? id : `${LARK_BOTS}${id}`))
    .pipe(url)
    .optional(),
  LARKBOT_SECRET: z.string().optional(),
  DINGTALK_WEBHOOK_URL: url.optional(),
  DINGTALK_SECRET: z.string().optional(),
  SMTP_URL: z.url({ protocol: /^smtps?$/ }).optional(),
  ALERT_EMAIL_TO: z
    .string()
    .regex(/^\S+@\S+$/, 'takes addresses such as desk@example.org,night@example.org')
    .optional(),
  MARKETPRISM_DESK_COINS: z
    .string()
    .default(DESK_COINS)
    .pipe(list)
    .pipe(z.array(z.string().regex(/^[A-Z0-9]+$/, 'takes coins such as BTC,ETH')).min(1)),
  MARKETPRISM_SERIES_DAYS: z.coerce.number().int().min(9).max(180).default(30),
  MARKETPRISM_ESCAPE_THRESHOLD: z.coerce.number().int().min(1).default(8),
  MARKETPRISM_CORRELATION_LONG: correlation.default(0.6),
  MARKETPRISM_CORRELATION_SHORT: correlation.default(0.3),
  MARKETPRISM_CORRELATION_DIFF: z.coerce.number().min(0).max(2).default(0.5),
  MARKETPRISM_CORRELATION_SIGNIFICANT: chance.optional(),
  OKX_API_KEY: z.string().optional(),
  OKX_API_SECRET: z.string().optional(),
  OKX_API_PASSPHRASE: z.string().optional(),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
});

const endpointsFile = z.partialRecord(
  z.enum(EXCHANGES),
  z.object({ ws: z.url({ protocol: /^wss?$/ }), rest: z.url({ protocol: /^https?$/ }) }),
);

/**
 * The configuration from environment variables.
 * @throws UsageError naming the variable, what it takes and what it was.
 */
export function loadConfig(env: NodeJS.ProcessEnv = process.env): Config {
  // An empty variable is how a unit file or a shell unsets one.
  const set = Object.entries(env).filter(([, value]) => value !== undefined && value !== '');
  const given = Object.fromEntries([...credentialsIn(env.CREDENTIALS_DIRECTORY), ...set]);
  const parsed = environment.safeParse(given);
  if (!parsed.success) throw new UsageError(describeIssue(parsed.error, given));
  checkProofs(env);
  const values = parsed.data;
  const demo = values.MARKETPRISM_MODE === 'demo';
  const dataDir = demo ? join(values.MARKETPRISM_DATA_DIR, 'demo') : values.MARKETPRISM_DATA_DIR;
  const demoEndpoints = demo && existsSync(join(dataDir, DEMO_ENDPOINTS)) ? join(dataDir, DEMO_ENDPOINTS) : undefined;
  const endpointsPath = values.MARKETPRISM_ENDPOINTS ?? demoEndpoints;
  const database = (tier: string) => `marketprism_${demo ? 'demo_' : ''}${tier}`;
  return {
    mode: values.MARKETPRISM_MODE,
    natsUrl: values.MARKETPRISM_NATS_URL ?? values.NATS_URL ?? 'nats://127.0.0.1:4222',
    clickhouseUrl: values.CLICKHOUSE_URL,
    coldClickhouseUrl: values.MARKETPRISM_COLD_CLICKHOUSE_URL ?? values.CLICKHOUSE_URL,
    clickhouseUser: values.CLICKHOUSE_USER,
    clickhousePassword: values.CLICKHOUSE_PASSWORD,
    clickhouseCluster: values.MARKETPRISM_CLICKHOUSE_CLUSTER ?? null,
    hotDatabase: values.MARKETPRISM_HOT_DATABASE ?? database('hot'),
    coldDatabase: values.MARKETPRISM_COLD_DATABASE ?? database('cold'),
    signalsDatabase: values.MARKETPRISM_SIGNALS_DATABASE ?? database('signals'),
    dataDir,
    exchanges: [...new Set(values.MARKETPRISM_EXCHANGES ?? EXCHANGES)],
    symbols: [...new Set(values.MARKETPRISM_SYMBOLS)],
    instruments: [...new Set(values.MARKETPRISM_INSTRUMENTS)].map((text) => {
      const colon = text.indexOf(':');
      return { exchange: text.slice(0, colon) as Exchange, id: text.slice(colon + 1) };
    }),
    collectorId: values.MARKETPRISM_COLLECTOR_ID,
    orderbookIntervalMs: duration('MARKETPRISM_ORDERBOOK_INTERVAL', values.MARKETPRISM_ORDERBOOK_INTERVAL),
    liquidationDelayMs:
      values.MARKETPRISM_LIQUIDATION_DELAY !== undefined
        ? duration('MARKETPRISM_LIQUIDATION_DELAY', values.MARKETPRISM_LIQUIDATION_DELAY)
        : demo
          ? DEMO_LIQUIDATION_DELAY_MS
          : undefined,
    gapAgeMs: duration('MARKETPRISM_GAP_AGE', values.MARKETPRISM_GAP_AGE),
    blockedRetryMs: duration('MARKETPRISM_BLOCKED_RETRY', values.MARKETPRISM_BLOCKED_RETRY),
    stoppedRetryMs: duration('MARKETPRISM_STOPPED_RETRY', values.MARKETPRISM_STOPPED_RETRY),
    replicationSeconds: Number(values.MARKETPRISM_REPLICATION_SECONDS),
    deadletterRetryMs: duration('MARKETPRISM_DEADLETTER_RETRY', values.MARKETPRISM_DEADLETTER_RETRY),
    ackWaitSeconds: values.MARKETPRISM_ACK_WAIT_SECONDS,
    lingerMs: duration('MARKETPRISM_LINGER', values.MARKETPRISM_LINGER),
    watermarks: readWatermarks(given),
    saveConcurrency: values.SAVE_CONCURRENCY,
    harvestCheckpointMs: duration('MARKETPRISM_HARVEST_CHECKPOINT', values.MARKETPRISM_HARVEST_CHECKPOINT),
    harvestDays: values.MARKETPRISM_HARVEST_DAYS,
    outboxMaxBytes: values.MARKETPRISM_OUTBOX_MAX_BYTES,
    streamMaxBytes: values.MARKETPRISM_STREAM_MAX_BYTES,
    streamReplicas:
      values.MARKETPRISM_STREAM_REPLICAS === undefined ? undefined : Number(values.MARKETPRISM_STREAM_REPLICAS),
    endpoints: endpointsPath === undefined ? {} : readEndpoints(endpointsPath),
    healthPort: values.HEALTH_CHECK_PORT,
    collectorPorts: values.MARKETPRISM_COLLECTOR_PORTS ?? [values.HEALTH_CHECK_PORT],
    metricsPort: values.METRICS_PORT,
    storePort: values.HOT_STORAGE_HTTP_PORT,
    storePorts: values.MARKETPRISM_STORE_PORTS ?? [values.HOT_STORAGE_HTTP_PORT],
    storeStreams: STREAM_NAMES.filter((name) => values.MARKETPRISM_STORE_STREAMS?.includes(name) ?? true),
    replicatePort: values.COLD_STORAGE_HTTP_PORT,
    monitorPort: values.MONITOR_HTTP_PORT,
    webPort: values.WEB_HTTP_PORT,
    webHost: values.MARKETPRISM_WEB_HOST,
    healthGraceSeconds: values.HEALTH_GRACE_SECONDS,
    timeZone: values.MARKETPRISM_TIMEZONE,
    language: values.MARKETPRISM_LANG,
    apiToken: values.MARKETPRISM_API_TOKEN,
    notify: notifyFrom(values),
    deskCoins: [...new Set(values.MARKETPRISM_DESK_COINS)],
    seriesDays: values.MARKETPRISM_SERIES_DAYS,
    escapeThreshold: values.MARKETPRISM_ESCAPE_THRESHOLD,
    correlation: {
      long: values.MARKETPRISM_CORRELATION_LONG,
      short: values.MARKETPRISM_CORRELATION_SHORT,
      diff: values.MARKETPRISM_CORRELATION_DIFF,
      significant: values.MARKETPRISM_CORRELATION_SIGNIFICANT ?? null,
    },
    okxKey: okxKeyFrom(values),
  };
}

/**
 * Secrets as systemd hands them over: a file each, named as the variable, which nobody but this service can read. `LoadCredential=` of a folder
 * puts the folder's id before their names.
 * @throws UsageError when one cannot be read
 */
function credentialsIn(directory: string | undefined): [name: string, value: string][] {
  if (!directory || !existsSync(directory)) return [];
  const files = readdirSync(directory).filter((name) => name.startsWith(CREDENTIAL_PREFIX));
  return files.map((file) => {
    try {
      return [file.slice(CREDENTIAL_PREFIX.length), readFileSync(join(directory, file), 'utf8').trim()];
    } catch (error) {
      throw new UsageError(`the credential ${file} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
    }
  });
}

/** @throws UsageError where only a part of the key is there */
function okxKeyFrom(values: z.infer<typeof environment>): Config['okxKey'] {
  const { OKX_API_KEY: key, OKX_API_SECRET: secret, OKX_API_PASSPHRASE: passphrase } = values;
  if (key === undefined && secret === undefined && passphrase === undefined) return undefined;
  if (key === undefined || secret === undefined || passphrase === undefined)
    throw new UsageError('OKX_API_KEY, OKX_API_SECRET and OKX_API_PASSPHRASE come together');
  return { key, secret, passphrase };
}

/** @throws UsageError where mail has a server and no address, or the other way round */
function notifyFrom(values: z.infer<typeof environment>): NotifyConfig {
  const { SMTP_URL: smtpUrl, ALERT_EMAIL_TO: emailTo } = values;
  if ((smtpUrl === undefined) !== (emailTo === undefined))
    throw new UsageError('SMTP_URL and ALERT_EMAIL_TO come together: a server, and who is written to');
  return {
    webhookUrl: values.MARKETPRISM_WEBHOOK_URL,
    slackUrl: values.SLACK_WEBHOOK_URL,
    larkUrl: values.LARKBOT_ID,
    larkSecret: values.LARKBOT_SECRET,
    dingtalkUrl: values.DINGTALK_WEBHOOK_URL,
    dingtalkSecret: values.DINGTALK_SECRET,
    smtpUrl,
    emailTo,
  };
}

/** `MARKETPRISM_WATERMARK_PRICES=high,emergency`, in rows. */
function readWatermarks(given: Record<string, string | undefined>): Record<WatermarkKind, Watermark> {
  const prefix = 'MARKETPRISM_WATERMARK_';
  const watermarks: Record<WatermarkKind, Watermark> = { ...WATERMARKS };
  for (const [name, value] of Object.entries(given)) {
    if (!name.startsWith(prefix)) continue;
    const kind = WATERMARK_KINDS.find((each) => each.toUpperCase() === name.slice(prefix.length));
    const names = WATERMARK_KINDS.map((each) => prefix + each.toUpperCase()).join(', ');
    if (kind === undefined) throw new UsageError(`${name}: no such kind; there are ${names}`);
    const [high, emergency, ...rest] = String(value).split(',').map(Number) as [number, ...number[]];
    const areRows = [high, emergency].every((rows) => Number.isInteger(rows) && rows! > 0);
    if (!areRows || emergency! < high || rest.length > 0) {
      throw new UsageError(`${name}: takes HIGH,EMERGENCY in rows, the second no less than the first, not "${value}"`);
    }
    watermarks[kind] = { high, emergency: emergency! };
  }
  return watermarks;
}

function readEndpoints(path: string): Partial<Record<Exchange, Endpoint>> {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UsageError(`MARKETPRISM_ENDPOINTS: ${path}: ${(error as Error).message}`);
  }
  const parsed = endpointsFile.safeParse(content);
  if (!parsed.success) throw new UsageError(`MARKETPRISM_ENDPOINTS: ${path}: ${describeIssue(parsed.error, content)}`);
  return parsed.data;
}

/** Addresses as they may be shown: without the user and password that can stand in them. */
export function shownUrl(urls: string): string {
  return urls.replace(/\/\/[^/@,\s]*@/g, '//');
}

/** The first fault as one line: where, what was wrong, what was given. Values of secrets are never shown. */
function describeIssue(error: z.ZodError, input: unknown): string {
  const issue = error.issues[0]!;
  const where = issue.path.join('.');
  const given = issue.path.reduce<unknown>(
    (value, member) => (typeof value === 'object' ? (value as Record<PropertyKey, unknown> | null)?.[member] : value),
    input,
  );
  const shown =
    given === undefined || /PASS|SECRET|TOKEN|KEY|WEBHOOK|LARKBOT|SMTP/.test(where)
      ? ''
      : `, not ${shownUrl(JSON.stringify(given))}`;
  return `${where}: ${issue.message}${shown}`;
}
