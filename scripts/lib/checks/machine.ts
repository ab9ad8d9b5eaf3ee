/** Checks of what the rows go through: services, tables, streams, dead letters, disk. */
import { join } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import { z } from 'zod';
import { selectText } from '../clickhouse.ts';
import { badFiles, letterFiles, readLetter } from '../deadletter.ts';
import { connectOnce } from '../jetstream.ts';
import { linesOf } from '../jsonl.ts';
import { DATA_TYPES, TABLES } from '../rows.ts';
import { type Tier, tableSql } from '../schema.ts';
import { durableName, streamDefinitions, streamOf } from '../streams.ts';
import type { Check, Finding } from './check.ts';

const ANSWER_WITHIN_MS = 5000;
/** Messages that wait for the store: at 10,000 rows a second and 100 rows a message, a minute and a half. */
const MOST_PENDING = 10_000;

const HEALTH = z.object({
  status: z.enum(['healthy', 'degraded', 'unhealthy']),
  checks: z.record(z.string(), z.object({ status: z.string(), error_message: z.string().nullable() })).default({}),
});

export const services: Check = {
  name: 'services',
  question: 'Do collector, store and replication answer, and what do they say of themselves?',
  limit: 'all healthy',
  fix: 'systemctl status marketprism-collector marketprism-store marketprism-replicate',
  async ask({ config }) {
    const findings: Finding[] = [];
    const places = { collector: config.healthPort, store: config.storePort, replicate: config.replicatePort };
    for (const [name, port] of Object.entries(places)) {
      const address = `http://127.0.0.1:${port}/health`;
      const finding = { subject: name, evidence: `curl -s ${address}` };
      try {
        // An unhealthy service answers 503 with the same document.
        const answer = await fetch(address, { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
        const { status, checks } = HEALTH.parse(await answer.json());
        if (status === 'healthy') continue;
        const reasons = Object.entries(checks).flatMap(([part, each]) =>
          each.status === 'healthy' ? [] : [`${part}: ${each.error_message ?? each.status}`],
        );
        const severity = status === 'unhealthy' ? 'high' : 'low';
        findings.push({ ...finding, kind: 'unwell', what: `${status}: ${reasons.join('; ')}`, severity });
      } catch (error) {
        const { cause, message } = error as Error & { cause?: { code?: string } };
        const what = `does not answer: ${cause?.code ?? message}`;
        findings.push({ ...finding, kind: 'down', what, severity: 'critical' });
      }
    }
    return { figure: `${3 - findings.length} of 3 healthy`, findings };
  },
};

export const schema: Check = {
  name: 'schema',
  question: 'Are the tables of hot and cold those that this version makes, expiry apart?',
  limit: '0 differences',
  fix: 'compare with sql/; npx tsx scripts/manage.ts --init makes what is missing',
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
        const [have, want] = [await present(client, database, name), await wanted(client, tier, database, name)];
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
  const statement = tableSql(TABLES[type], tier, database).replace('IF NOT EXISTS ', '').replace(/['\\]/g, '\\$&');
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
  question: 'Are the streams and consumers of JetStream as defined, and does the store keep up?',
  limit: `${MOST_PENDING} messages pending`,
  fix: 'npx tsx scripts/manage.ts --init; journalctl -u marketprism-store',
  async ask({ config }) {
    const nats = await connectOnce(config.natsUrl, 'integrity');
    try {
      const manager = await nats.jetstreamManager();
      const findings: Finding[] = [];
      let pending = 0;
      for (const { name, types } of streamDefinitions()) {
        const subjects = types.map((type) => `${type}.>`);
        const info = await manager.streams.info(name);
        const evidence = `nats stream info ${name}`;
        if ([...info.config.subjects].sort().join() !== [...subjects].sort().join())
          findings.push({
            kind: 'other_stream',
            subject: name,
            what: `takes ${info.config.subjects.join(', ')}, not ${subjects.join(', ')}`,
            severity: 'high',
            evidence,
          });
      }
      for (const type of DATA_TYPES) {
        const stream = streamOf(type).name;
        const info = await manager.consumers.info(stream, durableName(type)).catch(() => null);
        const evidence = `nats consumer info ${stream} ${durableName(type)}`;
        const finding = { subject: `${stream} ${durableName(type)}`, evidence };
        if (info === null) {
          const what = 'is not there: nobody stores its rows';
          findings.push({ ...finding, kind: 'no_consumer', what, severity: 'critical' });
          continue;
        }
        pending += info.num_pending;
        if (info.num_pending > MOST_PENDING)
          findings.push({ ...finding, kind: 'pending', what: `${info.num_pending} messages wait`, severity: 'medium' });
      }
      return { figure: `${pending} messages pending`, findings };
    } finally {
      await nats.close();
    }
  },
};

export const deadLetters: Check = {
  name: 'dead letters',
  question: 'Does any row wait that could not be stored?',
  limit: '0 rows',
  fix: 'npx tsx scripts/deadletter.ts list',
  repairs: ['dead-letters'],
  async ask({ config: { dataDir } }) {
    const findings: Finding[] = [];
    let letters = 0;
    for (const { directory, name } of letterFiles(dataDir)) {
      const path = join(directory, name);
      let [good, bad] = [0, 0];
      for await (const { bytes } of linesOf(path)) typeof readLetter(bytes) === 'string' ? (bad += 1) : (good += 1);
      letters += good;
      const letter = { subject: path, evidence: `npx tsx scripts/deadletter.ts explain ${path}` };
      if (good > 0) findings.push({ ...letter, kind: 'waiting_rows', what: `${good} rows wait`, severity: 'medium' });
      if (bad > 0)
        findings.push({ ...letter, kind: 'bad_lines', what: `${bad} lines cannot be read`, severity: 'high' });
    }
    for (const { directory, name } of badFiles(dataDir)) {
      const path = join(directory, name);
      const what = 'lines that no replay could read';
      findings.push({ kind: 'set_aside', subject: path, what, severity: 'high', evidence: path });
    }
    return { figure: `${letters} rows`, findings };
  },
};
