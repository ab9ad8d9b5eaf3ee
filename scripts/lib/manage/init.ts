/** `manage.ts init` and `sql`: what must be there before anything can be stored. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { coldServer, createClickHouse, hotServer } from '../clickhouse.ts';
import type { Config } from '../config.ts';
import { connectNats, ensureStreams } from '../jetstream.ts';
import { createLogger } from '../log.ts';
import { ensureSignals, ensureTier, ensureViews, SQL_FILES, sqlFile } from '../schema.ts';
import { streamDefinitions } from '../streams.ts';
import { type Command, onlyFlags } from './command.ts';
import { findSet } from './set.ts';

const INIT = {
  name: 'init',
  takes: '',
  what: 'creates what is missing: databases, tables, views, streams',
  more: `
Databases and tables of hot, cold and signals; the views over both where they are on one server; the streams of JetStream. What is there is left as it is.
`,
};
const SQL = {
  name: 'sql',
  takes: '[--write]',
  what: 'prints the statements that make the tables; with --write into the files under sql/',
};

export const init: Command = {
  ...INIT,
  async run(argv, { env, systemd }) {
    onlyFlags(INIT, {}, argv);
    await initialise((await findSet(env, systemd)).config);
    return 0;
  },
};

export const sql: Command = {
  ...SQL,
  async run(argv, { out }) {
    const { write } = onlyFlags(SQL, { write: { type: 'boolean', default: false } }, argv);
    for (const name of SQL_FILES) {
      const path = join(import.meta.dirname, '..', '..', '..', 'sql', `${name}.sql`);
      if (write) mkdirSync(dirname(path), { recursive: true });
      if (write) writeFileSync(path, sqlFile(name));
      else out.write(sqlFile(name));
    }
    return 0;
  },
};

async function initialise(config: Config): Promise<void> {
  const log = createLogger('manage');
  const places = [
    ['hot', hotServer(config), config.hotDatabase],
    ['cold', coldServer(config), config.coldDatabase],
  ] as const;
  for (const [tier, server, database] of places) {
    const client = createClickHouse(server, 'marketprism-manage');
    await ensureTier(client, tier, database, log);
    await client.close();
    log.info({ event: 'tables_ready', tier, database });
  }
  // After the tables of both, which they read.
  const hot = createClickHouse(hotServer(config), 'marketprism-manage');
  await ensureViews(hot, config, log);
  await ensureSignals(hot, config.signalsDatabase, log);
  await hot.close();
  const nats = await connectNats(config.natsUrl, 'manage', log);
  await ensureStreams(await nats.jetstreamManager(), streamDefinitions(config), log);
  await nats.close();
}
