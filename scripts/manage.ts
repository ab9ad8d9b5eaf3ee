const USAGE = `
manage.ts: the operator's entry.

Usage:   npx tsx scripts/manage.ts --init | --sql [--write] | status [--json]
Example: CLICKHOUSE_URL=http://127.0.0.1:8123 npx tsx scripts/manage.ts --init
         npx tsx scripts/manage.ts status

Commands:
  status    what arrived in hot in the last 24 h and how old the newest of each stream is, gaps, and how far the collector
            trusts its books; with --json, as one JSON document
            exit code: 0 healthy; 1 degraded: an open gap, a stale stream (trades, books and updates of books after 60 s,
            liquidations never, all others after 8 h), no row at all, a collector that is degraded or away; 2 unhealthy: the
            collector says so; 3 the database could not be asked

Flags:
  --init    create what is missing: databases and tables of hot, cold and signals, the views over both where they are on one server, streams
  --sql     print the statements that make the tables; with --write, write them to the files under sql/
  --write   with --sql: into the files
  --json    with status: as JSON
`;

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { flags, runAsScript, UsageError } from './lib/cli.ts';
import { createClickHouse, selectText } from './lib/clickhouse.ts';
import { type Config, loadConfig, shownUrl } from './lib/config.ts';
import { connectNats, ensureStreams } from './lib/jetstream.ts';
import { createLogger } from './lib/log.ts';
import { ensureSignals, ensureTier, ensureViews, SQL_FILES, sqlFile } from './lib/schema.ts';
import {
  type Answered,
  type CollectorFigures,
  type DatabaseFigures,
  EXIT,
  gapsFrom,
  gapsQuery,
  healthFrom,
  openGapsFrom,
  openGapsQuery,
  statusJson,
  statusText,
  streamsFrom,
  streamsQuery,
  verdictOf,
} from './lib/status.ts';
import { streamDefinitions } from './lib/streams.ts';

/** The collector answers from memory. */
const HEALTH_TIMEOUT_MS = 5000;

async function initialise(config: Config): Promise<void> {
  const log = createLogger('manage');
  const account = { username: config.clickhouseUser, password: config.clickhousePassword };
  const places = [
    ['hot', config.clickhouseUrl, config.hotDatabase],
    ['cold', config.coldClickhouseUrl, config.coldDatabase],
  ] as const;
  for (const [tier, url, database] of places) {
    const client = createClickHouse({ url, ...account }, 'marketprism-manage');
    await ensureTier(client, tier, database);
    await client.close();
    log.info({ event: 'tables_ready', tier, database });
  }
  // After the tables of both, which they read.
  const hot = createClickHouse({ url: config.clickhouseUrl, ...account }, 'marketprism-manage');
  await ensureViews(hot, config, log);
  await ensureSignals(hot, config.signalsDatabase);
  await hot.close();
  const nats = await connectNats(config.natsUrl, 'manage', log);
  await ensureStreams(await nats.jetstreamManager(), streamDefinitions(config.streamMaxBytes), log);
  await nats.close();
}

/** Prints the state of hot and of the collector. @returns the exit code that says how it is */
async function tellStatus(config: Config, asJson: boolean): Promise<number> {
  const collector = `http://127.0.0.1:${config.healthPort}/health`;
  const [hot, health] = await Promise.all([askDatabase(config), askCollector(collector)]);
  const status = { database: `${config.hotDatabase} at ${shownUrl(config.clickhouseUrl)}`, collector, hot, health };
  process.stdout.write(`${asJson ? statusJson(status) : statusText(status)}\n`);
  return EXIT[verdictOf(status)];
}

async function askDatabase(config: Config): Promise<Answered<DatabaseFigures>> {
  const { clickhouseUrl: url, clickhouseUser: username, clickhousePassword: password, hotDatabase } = config;
  const client = createClickHouse({ url, username, password }, 'marketprism-manage');
  try {
    return {
      figures: {
        streams: streamsFrom(await selectText(client, streamsQuery(hotDatabase))),
        gaps: gapsFrom(await selectText(client, gapsQuery(hotDatabase))),
        open_gaps: openGapsFrom(await selectText(client, openGapsQuery(hotDatabase))),
      },
    };
  } catch (error) {
    return { fault: reasonOf(error) };
  } finally {
    await client.close();
  }
}

async function askCollector(address: string): Promise<Answered<CollectorFigures>> {
  try {
    // An unhealthy collector answers with 503 and the same document.
    const answer = await fetch(address, { signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS) });
    return healthFrom(await answer.json());
  } catch (error) {
    return { fault: reasonOf(error) };
  }
}

/** The first line of what went wrong; what was refused or timed out is told by the cause within. */
function reasonOf(error: unknown): string {
  const { message, cause, code } = error as Error & { code?: string };
  const inner = cause instanceof Error ? `: ${cause.message || (cause as NodeJS.ErrnoException).code}` : '';
  return `${message || code}${inner}`.split('\n')[0]!;
}

async function main(): Promise<number> {
  const argv = process.argv.slice(2);
  const word = argv.indexOf('status');
  const isStatus = word >= 0;
  if (isStatus) argv.splice(word, 1);
  const options = flags(
    USAGE,
    {
      init: { type: 'boolean', default: false },
      sql: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
    argv,
  );
  if ([options.init, options.sql, isStatus].filter(Boolean).length !== 1) {
    throw new UsageError('one of --init, --sql and status is needed (--help tells more)');
  }
  if (options.write && !options.sql) throw new UsageError('--write belongs to --sql');
  if (options.json && !isStatus) throw new UsageError('--json belongs to status');
  if (isStatus) return tellStatus(loadConfig(), options.json);
  if (options.init) await initialise(loadConfig());
  else {
    for (const name of SQL_FILES) {
      if (options.write) writeFileSync(join(import.meta.dirname, '..', 'sql', `${name}.sql`), sqlFile(name));
      else process.stdout.write(sqlFile(name));
    }
  }
  return 0;
}

runAsScript(import.meta.url, main);
