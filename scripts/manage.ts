const USAGE = `
manage.ts: the operator's entry.

Usage:   npx tsx scripts/manage.ts --init | --sql [--write]
Example: CLICKHOUSE_URL=http://127.0.0.1:8123 npx tsx scripts/manage.ts --init

Flags:
  --init    create what is missing: databases and tables of hot and cold, streams
  --sql     print the statements that make the tables; with --write, write them to sql/hot.sql and sql/cold.sql
`;

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { flags, runAsScript, UsageError } from './lib/cli.ts';
import { createClickHouse } from './lib/clickhouse.ts';
import { type Config, loadConfig } from './lib/config.ts';
import { connectNats, ensureStreams } from './lib/jetstream.ts';
import { createLogger } from './lib/log.ts';
import { ensureTier, type Tier, tierFile } from './lib/schema.ts';
import { streamDefinitions } from './lib/streams.ts';

const TIERS: Tier[] = ['hot', 'cold'];

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
  const nats = await connectNats(config.natsUrl, 'manage', log);
  await ensureStreams(await nats.jetstreamManager(), streamDefinitions(config.streamMaxBytes), log);
  await nats.close();
}

async function main(): Promise<number> {
  const options = flags(USAGE, {
    init: { type: 'boolean', default: false },
    sql: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  });
  if (options.init === options.sql) throw new UsageError('one of --init and --sql is needed (--help tells more)');
  if (options.init) await initialise(loadConfig());
  else {
    for (const tier of TIERS) {
      if (options.write) writeFileSync(join(import.meta.dirname, '..', 'sql', `${tier}.sql`), tierFile(tier));
      else process.stdout.write(tierFile(tier));
    }
  }
  return 0;
}

runAsScript(import.meta.url, main);
