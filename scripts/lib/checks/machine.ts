/** Checks of what the rows go through: services, tables, streams, dead letters, disk. */
import { join } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import { z } from 'zod';
import { selectText } from '../clickhouse.ts';
import { clusterOf, storedName } from '../cluster.ts';
import { shownUrl } from '../config.ts';
import { badFiles, letterFiles, readLetter } from '../deadletter.ts';
import { consumerInfo, wantedDurable } from '../durables.ts';
import { badHarvestFiles, harvestLetterFiles } from '../harvest/letters.ts';
import { connectOnce, differingMembers, streamInfo, wantedStream } from '../jetstream.ts';
import { healthOf } from '../joint_health.ts';
import { linesOf } from '../jsonl.ts';
import { DATA_TYPES, TABLES } from '../rows.ts';
import { localTableSql } from '../schema_cluster.ts';
import { type Tier, tableSql } from '../schema_sql.ts';
import { durableName, streamDefinitions } from '../streams.ts';
import { type Check, type Finding, PARTS, type Part, type Severity } from './check.ts';
import { plural } from './rows.ts';

const ANSWER_WITHIN_MS = 5000;
/** Messages that were delivered before and are without an answer still; at a restart of the store there are some for a moment. */
const MOST_REDELIVERED = 100;

const HEALTH = z.object({
  status: z.enum(['healthy', 'degraded', 'unhealthy']),
  checks: z.record(z.string(), z.object({ status: z.string(), error_message: z.string().nullable() })).default({}),
});

export const services: Check = {
  name: 'services',
  zh: '服务',
  question: 'Do broker, databases, collector, store and replication answer, and what do they say of themselves?',
  limit: () => 'all healthy',
  fix: 'systemctl status marketprism-nats marketprism-clickhouse marketprism-collector marketprism-store marketprism-replicate',
  standsOn: ['nats', 'hot', 'cold'],
  isOfNow: true,
  async ask({ config, hot, cold }) {
    const asked: Record<Part, Promise<Omit<Finding, 'subject'> | null>> = {
      nats: withoutAnswer(config.natsUrl, () => natsAnswersAt(config.natsUrl)),
      hot: withoutAnswer(config.clickhouseUrl, () => databaseAnswers(hot)),
      cold: withoutAnswer(config.coldClickhouseUrl, () => databaseAnswers(cold)),
      collector: wordOf(config.collectorPorts),
      store: wordOf(config.storePorts),
      replicate: wordOf([config.replicatePort]),
    };
    const findings: Finding[] = [];
    for (const part of PARTS) {
      const finding = await asked[part];
      if (finding !== null) findings.push({ ...finding, subject: part });
    }
    return { figure: `${PARTS.length - findings.length} of ${PARTS.length} healthy`, findings };
  },
};

async function withoutAnswer(url: string, ask: () => Promise<void>): Promise<Omit<Finding, 'subject'> | null> {
  const address = shownUrl(url);
  try {
    await ask();
    return null;
  } catch (error) {
    const what = `does not answer: ${reasonOf(error as Error)}`;
    return { kind: 'down', what, severity: 'critical', evidence: address };
  }
}

async function natsAnswersAt(url: string): Promise<void> {
  const nats = await connectOnce(url, 'integrity');
  await nats.close();
}

async function databaseAnswers(client: ClickHouseClient): Promise<void> {
  // The client's own limit is that of long queries.
  await client.query({ query: 'SELECT 1', abort_signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
}

/** What a service says of itself at its health port, or the collectors at theirs; null: healthy. */
async function wordOf(ports: readonly number[]): Promise<Omit<Finding, 'subject'> | null> {
  const evidence = `curl -s ${ports.map((port) => `http://127.0.0.1:${port}/health`).join(' ')}`;
  try {
    const { status, checks } = HEALTH.parse(await healthOf(ports, ANSWER_WITHIN_MS));
    if (status === 'healthy') return null;
    const reasons = Object.entries(checks).flatMap(([part, each]) =>
      each.status === 'healthy' ? [] : [`${part}: ${each.error_message ?? each.status}`],
    );
    const severity = status === 'unhealthy' ? 'high' : 'low';
    return { kind: 'unwell', what: `${status}: ${reasons.join('; ')}`, severity, evidence };
  } catch (error) {
    const what = `does not answer: ${reasonOf(error as Error)}`;
    return { kind: 'down', what, severity: 'critical', evidence };
  }
}

function reasonOf({ message, cause, ...error }: Error & { code?: string }): string {
  const deeper = cause as { code?: string } | undefined;
  return deeper?.code ?? error.code ?? message.split('\n')[0]!;
}

export const schema: Check = {
  name: 'schema',
  zh: '表结构',
  question: 'Are the tables of hot and cold those that this version makes, expiry apart?',
  limit: () => '0 differences',
  fix: 'compare with sql/; npx tsx scripts/manage.ts init makes what is missing',
  standsOn: ['hot', 'cold'],
  isOfNow: true,
  async ask(context) {
    const { hot, cold, config } = context;
    const findings: Finding[] = [];
    for (const [tier, client, database] of [
      ['hot', hot, config.hotDatabase],
      ['cold', cold, config.coldDatabase],
    ] as const) {
      for (const type of DATA_TYPES) {
        const { name } = TABLES[type];
        const finding = { subject: `${database}.${name}`, evidence: `SHOW CREATE TABLE ${database}.${name}` };
        const stored = storedName(client, name);
        const [have, want] = [await present(client, database, stored), await wanted(client, tier, database, name)];
        if (have === null) {
          findings.push({ ...finding, kind: 'no_table', what: 'is not there', severity: 'critical' });
          continue;
        }
        const absent = want.filter((part) => !have.includes(part));
        const foreign = have.filter((part) => !want.includes(part));
        if (absent.length + foreign.length === 0) continue;
        const what = [...absent.map((part) => `lacks ${part}`), ...foreign.map((part) => `has ${part}`)].join('; ');
        findings.push({ ...finding, kind: 'other_table', what, severity: 'high' });
      }
    }
    return { figure: `${DATA_TYPES.length * 2} tables`, findings };
  },
};

/** Columns, engine, partitions and order of a table as the server has them; null when there is none. */
async function present(client: ClickHouseClient, database: string, table: string): Promise<string[] | null> {
  const query = `SELECT formatQuerySingleLine(create_table_query) FROM system.tables WHERE database = '${database}' AND name = '${table}'`;
  const [[text] = []] = await selectText(client, query);
  return text === undefined ? null : partsOf(text);
}

async function wanted(client: ClickHouseClient, tier: Tier, database: string, table: string): Promise<string[]> {
  const type = DATA_TYPES.find((each) => TABLES[each].name === table)!;
  const cluster = clusterOf(client);
  const made =
    cluster === null
      ? tableSql(TABLES[type], tier, database)
      : localTableSql(TABLES[type], tier, database, cluster).replace(/ ON CLUSTER '.*'/, '');
  const statement = made.replace('IF NOT EXISTS ', '').replace(/['\\]/g, '\\$&');
  const [[text] = []] = await selectText(client, `SELECT formatQuerySingleLine('${statement}')`);
  return partsOf(text!);
}

/** A statement as the server writes it, taken apart where a column begins; how long rows are kept is the operator's. */
function partsOf(text: string): string[] {
  return text
    .replaceAll("\\'", "'")
    .replace(/ TTL .*$/, '')
    .replaceAll('Delta(8)', 'Delta')
    .replace(/^CREATE TABLE \S+ \(/, '')
    .split(/, (?=`|INDEX )|\) (?=ENGINE)/);
}

export const streams: Check = {
  name: 'streams',
  zh: '消息流',
  question: 'Are the streams and consumers of JetStream as defined, and does the store keep up?',
  limit: ({ pending_messages }) => `${pending_messages} messages pending, ${MOST_REDELIVERED} redelivered`,
  fix: 'npx tsx scripts/manage.ts init; journalctl -u marketprism-store',
  standsOn: ['nats', 'store'],
  isOfNow: true,
  async ask({ config, limits }) {
    const nats = await connectOnce(config.natsUrl, 'integrity');
    try {
      const manager = await nats.jetstreamManager();
      const findings: Finding[] = [];
      let [pending, redelivered] = [0, 0];
      for (const definition of streamDefinitions(config)) {
        const { name } = definition;
        const info = await streamInfo(manager, name);
        const finding = { subject: name, evidence: `nats stream info ${name}` };
        if (info === null) {
          findings.push({ ...finding, kind: 'no_stream', what: 'is not there', severity: 'critical' });
          continue;
        }
        const { max_age, max_bytes, ...wanted } = wantedStream(definition);
        const differing = differingMembers(wanted, info.config);
        // It is longer while the store reads more slowly than that; and how large, npm start takes from the disk.
        if (info.config.max_age < max_age) differing.push('max_age');
        if (config.streamMaxBytes !== undefined && info.config.max_bytes !== max_bytes) differing.push('max_bytes');
        if (differing.length > 0)
          findings.push({ ...finding, kind: 'other_stream', ...otherwise(differing, info.config) });
        for (const type of definition.types) {
          const durable = await consumerInfo(manager, name, durableName(type));
          const subject = `${name} ${durableName(type)}`;
          const found = { subject, evidence: `nats consumer info ${subject}` };
          if (durable === null) {
            const what = 'is not there: nobody stores its rows';
            findings.push({ ...found, kind: 'no_consumer', what, severity: 'critical' });
            continue;
          }
          const others = differingMembers(wantedDurable(definition, type, config.ackWaitSeconds), durable.config);
          if (others.length > 0)
            findings.push({ ...found, kind: 'other_consumer', ...otherwise(others, durable.config) });
          pending += durable.num_pending;
          redelivered += durable.num_redelivered;
          if (durable.num_pending > limits.pending_messages) {
            const what = `${durable.num_pending} messages wait`;
            findings.push({ ...found, kind: 'pending', what, severity: 'medium' });
          }
          if (durable.num_redelivered > MOST_REDELIVERED) {
            const what = `${durable.num_redelivered} messages were delivered before, and are not acknowledged`;
            findings.push({ ...found, kind: 'redelivered', what, severity: 'medium' });
          }
        }
      }
      return { figure: `${pending} messages pending, ${redelivered} redelivered`, findings };
    } finally {
      await nats.close();
    }
  },
};

function otherwise(members: string[], config: object): { what: string; severity: Severity } {
  const given = new Map(Object.entries(config));
  const told = members.map((member) => `${member} is ${JSON.stringify(given.get(member)) ?? 'absent'}`);
  return { what: told.join(', '), severity: 'high' };
}

export const deadLetters: Check = {
  name: 'dead letters',
  zh: '死信',
  question: 'Does any row wait that could not be stored?',
  limit: () => '0 rows',
  fix: 'npx tsx scripts/deadletter.ts list',
  repairs: ['dead-letters'],
  standsOn: ['hot'],
  isOfNow: true,
  async ask({ config: { dataDir } }) {
    const findings: Finding[] = [];
    let letters = 0;
    for (const { directory, name } of letterFiles(dataDir)) {
      const path = join(directory, name);
      let [good, bad] = [0, 0];
      for await (const { bytes } of linesOf(path)) typeof readLetter(bytes) === 'string' ? (bad += 1) : (good += 1);
      letters += good;
      const letter = { subject: path, evidence: `npx tsx scripts/deadletter.ts explain ${path}` };
      if (good > 0)
        findings.push({ ...letter, kind: 'waiting_rows', what: `${plural(good, 'row')} waiting`, severity: 'medium' });
      if (bad > 0)
        findings.push({
          ...letter,
          kind: 'bad_lines',
          what: `${plural(bad, 'line')} that nobody can read`,
          severity: 'high',
        });
    }
    for (const { directory, name } of badFiles(dataDir)) {
      const path = join(directory, name);
      const what = 'lines that no replay could read';
      findings.push({ kind: 'set_aside', subject: path, what, severity: 'high', evidence: path });
    }
    for (const { directory, name } of harvestLetterFiles(dataDir)) {
      const path = join(directory, name);
      let rows = 0;
      for await (const _line of linesOf(path)) rows += 1;
      letters += rows;
      const what = `${plural(rows, 'row')} of the harvest waiting: its harvester delivers them when it can`;
      const evidence = `npx tsx scripts/deadletter.ts explain ${path}`;
      findings.push({ kind: 'waiting_harvest', subject: path, what, severity: 'medium', evidence });
    }
    for (const { directory, name } of badHarvestFiles(dataDir)) {
      const path = join(directory, name);
      const what = 'lines that no replay could read';
      findings.push({ kind: 'set_aside', subject: path, what, severity: 'high', evidence: path });
    }
    return { figure: `${letters} rows`, findings };
  },
};
